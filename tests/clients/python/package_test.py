# SPDX-License-Identifier: Apache-2.0
"""The package as a whole: stubs up to date, types, style, what it exports."""

import ast
import pathlib
import shutil
import subprocess
import sys

import piserve
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "clients" / "python"
PYTHON = sorted(
    path
    for folder in (
        "clients/python",
        "deploy/demo",
        "tests/clients",
        "tests/end_to_end",
        "tests/libero_check",
        "tests/support",
    )
    for path in (ROOT / folder).rglob("*.py")
    if "_proto" not in path.parts
)


def test_committed_stubs_are_what_the_proto_gives(tmp_path):
    if not shutil.which("protoc") or not shutil.which("grpc_python_plugin"):
        pytest.skip("protoc or grpc_python_plugin is not installed")
    subprocess.run(
        [
            sys.executable,
            PACKAGE / "tools" / "generate_stubs.py",
            "--out",
            tmp_path,
        ],
        check=True,
    )
    committed = PACKAGE / "piserve" / "_proto"
    made = sorted(path.name for path in tmp_path.iterdir())
    kept = sorted(path.name for path in committed.glob("*_pb2*"))
    assert made == kept
    for name in made:
        assert (tmp_path / name).read_text() == (
            committed / name
        ).read_text(), f"{name} is stale: run tools/generate_stubs.py"


def test_stubs_live_beside_another_piserve_v1(tmp_path):
    """A user's own stubs of the same proto load in the same process."""
    if not shutil.which("protoc"):
        pytest.skip("protoc is not installed")
    subprocess.run(
        [
            "protoc",
            "-I.",
            f"--python_out={tmp_path}",
            "piserve/v1/policy.proto",
        ],
        cwd=ROOT / "proto",
        check=True,
    )
    own = tmp_path / "piserve" / "v1" / "policy_pb2.py"
    own.rename(tmp_path / "their_policy_pb2.py")
    program = (
        "import piserve, their_policy_pb2 as p; "
        "assert p.InferRequest().SerializeToString() == b''"
    )
    subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": f"{PACKAGE}:{tmp_path}"},
        check=True,
    )


def test_proto_compiles_with_only_the_well_known_types(tmp_path):
    """A client needs our one file and what every protobuf ships."""
    if not shutil.which("protoc"):
        pytest.skip("protoc is not installed")
    shutil.copy(ROOT / "proto/piserve/v1/policy.proto", tmp_path)
    subprocess.run(
        ["protoc", "-I.", "--descriptor_set_out=d", "policy.proto"],
        cwd=tmp_path,
        check=True,
    )


def test_types_are_clean():
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mypy", "piserve"),
            *("--config-file", "pyproject.toml"),
            *("--cache-dir", str(ROOT / "build" / ".mypy_cache")),
        ],
        cwd=PACKAGE,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", [["check"], ["format", "--check"]])
def test_style_is_clean(command):
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ruff", *command, "--no-cache"),
            *map(str, PYTHON),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_reads_as_python_3_8():
    for path in (PACKAGE / "piserve").rglob("*.py"):
        ast.parse(path.read_text(), feature_version=(3, 8))


def test_every_python_file_names_its_licence():
    for path in PYTHON:
        head = path.read_text()[:200]
        assert "SPDX-License-Identifier: Apache-2.0" in head, path


def test_all_that_is_exported_is_documented():
    for name in piserve.__all__:
        assert getattr(piserve, name).__doc__, name
