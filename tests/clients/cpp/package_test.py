# SPDX-License-Identifier: Apache-2.0
"""The C++ client as a package, in a project that knows nothing else of ours."""

import subprocess

from serving import binary

PROJECT = """
cmake_minimum_required(VERSION 3.25)
project(robot LANGUAGES CXX)
find_package(piserve 0.1 REQUIRED)
add_executable(robot robot.cc)
target_link_libraries(robot PRIVATE piserve::client)
"""

# Port 1: nobody listens there.
PROGRAM = """
#include <iostream>

#include "clients/cpp/piserve/broker.h"
#include "clients/cpp/piserve/client.h"
#include "clients/cpp/piserve/latest.h"
#include "clients/cpp/piserve/status.h"
#include "clients/cpp/piserve/stream.h"

int main() {
  piserve::client::Options options;
  options.address = "127.0.0.1:1";
  auto client = piserve::client::PolicyClient::Connect(options);
  if (!client.ok()) return 1;
  piserve::client::ObservationIn observation;
  observation.prompt = "pick up the bowl";
  const auto chunk = (*client)->Infer(observation);
  std::cout << absl::StatusCodeToString(chunk.status().code());
}
"""


def run(*command, **options):
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        **options,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def test_another_project_finds_the_client_and_links_it(tmp_path):
    build = binary("policy_cli").parent.parent
    installed, project = tmp_path / "installed", tmp_path / "robot"
    run(
        *("cmake", "--install", build, "--component", "client"),
        *("--prefix", installed),
    )
    names = {path.name for path in installed.rglob("*")}
    assert "libpiserve_client.a" in names
    assert not [name for name in names if "engine" in name or "torch" in name]
    project.mkdir()
    (project / "CMakeLists.txt").write_text(PROJECT)
    (project / "robot.cc").write_text(PROGRAM)
    run(
        *("cmake", "-S", project, "-B", project / "build"),
        f"-DCMAKE_PREFIX_PATH={installed}",
    )
    run("cmake", "--build", project / "build")
    assert run(project / "build/robot") == "UNAVAILABLE"
