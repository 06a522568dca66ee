# SPDX-License-Identifier: Apache-2.0
"""The first command a newcomer runs."""

import subprocess
import sys

import pytest
import recorded
from server_process import ROOT
from serving import binary


def demo(*arguments):
    return subprocess.run(
        [sys.executable, ROOT / "deploy" / "demo" / "demo.py", *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.parametrize("policy", recorded.config_names())
def test_demo_shows_actions_equal_to_openpis(policy):
    done = demo(
        f"--server={binary('policy_server')}",
        f"--policy={policy}",
        "--episodes=0",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout
    for observation in (1, 2, 3):
        assert f"Observation {observation} of 3" in text
    assert text.count("robot units") >= 3
    assert text.count("   bound ") == 6
    assert "denoise" in text or "gpu" in text
    assert 'piserve_requests_received_total{method="Infer"} 3' in text
    assert "server stopped, exit code 0   ok" in text
    assert "OFF" not in text
    assert "\033" not in text, "colour, though nobody watches"


def test_demo_moves_a_robot_and_films_it(tmp_path):
    done = demo(
        f"--server={binary('policy_server')}",
        "--episodes=2",
        f"--out={tmp_path}",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "success  2 of 2 episodes" in done.stdout
    assert "denoise" in done.stdout.split("A robot in a closed loop")[1]
    assert (tmp_path / "tabletop.gif").read_bytes().startswith(b"GIF89a")
    assert (tmp_path / "tabletop.png").read_bytes().startswith(b"\x89PNG")


def test_demo_fails_without_a_server(tmp_path):
    done = demo(f"--server={tmp_path / 'policy_server'}")
    assert done.returncode == 1
    assert "build it first" in done.stdout


def test_demo_fails_if_the_server_does_not_start(tmp_path):
    broken = tmp_path / "policy_server"
    broken.write_text("#!/bin/sh\necho no weights >&2\nexit 3\n")
    broken.chmod(0o755)
    done = demo(f"--server={broken}")
    assert done.returncode == 1
    assert "no weights" in done.stdout
