# SPDX-License-Identifier: Apache-2.0
"""Which folder may include what.

System packages put every header on the default include path, so the compiler
does not catch a stray include. This does. Each folder lists the project folders
and the libraries it may know; the most specific row decides.
"""

import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]

# Library name -> what its includes look like.
LIBRARIES = {
    "grpc": r"<?(grpc|grpcpp|grpc\+\+)/",
    "protobuf": r"google/protobuf/",
    "googleapis": r"google/rpc/",
    "health": r"grpc/health/",
    "absl": r"absl/",
    "torch": r"(torch|ATen|c10)/",
    "spdlog": r"(spdlog|fmt)/",
    "prometheus": r"(prometheus/|CivetServer|civetweb)",
    "nlohmann": r"nlohmann/",
    "jpeg": r"(jpeglib|turbojpeg|jerror)\.h",
    "png": r"png\.h",
    "sentencepiece": r"sentencepiece",
    "openssl": r"openssl/",
    "boost": r"boost/",
    "msgpack": r"msgpack",
    "gtest": r"(gtest|gmock)/",
    "benchmark": r"benchmark/",
    "cuda": r"(cuda|cublas|cudnn|cute/|cutlass/)",
}

# folder: (project folders, libraries)
RULES = {
    "server/rpc": (
        {"server", "server/rpc", "batching", "model", "proto"},
        {"grpc", "protobuf", "googleapis", "health", "absl", "openssl"},
    ),
    "server/websocket": (
        {
            "server",
            "server/rpc",
            "server/websocket",
            "batching",
            "model",
            "proto",
        },
        {"boost", "msgpack", "protobuf", "absl"},
    ),
    "server/recording": (
        {
            "server",
            "server/rpc",
            "server/recording",
            "batching",
            "model",
            "proto",
        },
        {"absl"},
    ),
    "server": (
        {
            "server",
            "server/recording",
            "server/rpc",
            "server/websocket",
            "batching",
            "model",
            "model/checkpoint",
            "model/transform",
            "model/reference",
            "model/engine",
            "proto",
        },
        {"protobuf", "absl", "spdlog", "prometheus", "openssl", "nlohmann"},
    ),
    "clients": (
        {"clients", "proto"},
        {"grpc", "protobuf", "googleapis", "absl"},
    ),
    "clients/cpp/cli": (
        {"clients", "clients/cpp/cli", "proto"},
        {"grpc", "protobuf", "health", "absl", "nlohmann"},
    ),
    "clients/cpp/load": (
        {"clients", "clients/cpp/cli", "clients/cpp/load", "proto"},
        {"grpc", "protobuf", "absl", "nlohmann"},
    ),
    "model/engine": (
        {"model", "model/engine", "model/kernels", "model/checkpoint"},
        {"absl", "torch", "cuda"},
    ),
    "model/reference": (
        {"model", "model/reference", "model/checkpoint"},
        {"absl", "torch"},
    ),
    "model/checkpoint": (
        {"model", "model/checkpoint"},
        {"absl", "nlohmann", "openssl"},
    ),
    "model/transform": (
        {"model", "model/transform"},
        {"absl", "jpeg", "png", "sentencepiece", "openssl"},
    ),
    "model/kernels": ({"model/kernels"}, {"cuda"}),
    "model": ({"model"}, {"absl"}),
    "batching": ({"batching"}, {"absl"}),
}

INCLUDE = re.compile(r'^\s*#\s*include\s*[<"]([^">]+)[">]', re.MULTILINE)


def folder_of(path, folders):
    """The most specific listed folder that holds `path`, or None."""
    parts = pathlib.PurePosixPath(path).parts[:-1]
    for n in range(len(parts), 0, -1):
        if "/".join(parts[:n]) in folders:
            return "/".join(parts[:n])
    return None


def library_of(include):
    for name, pattern in LIBRARIES.items():
        if re.match(pattern, include):
            return name
    return None


def project_folder(include):
    """The rule's name for an include of ours, or None for foreign ones."""
    if include.startswith("piserve/"):
        # Generated from proto/piserve; clients/cpp/piserve is included by its
        # full path.
        return "proto"
    if include.startswith("tests/"):
        return "tests"
    return folder_of(include, set(RULES))


def sources():
    names = subprocess.run(
        ["git", "ls-files", "*.h", "*.cc", "*.cu", "*.cuh"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    return [n for n in names if not n.startswith("tests/")]


def violations(path, text):
    folder = folder_of(path, RULES)
    if folder is None:
        return [f"{path}: its folder has no rule"]
    folders, libraries = RULES[folder]
    found = []
    for include in INCLUDE.findall(text):
        target = project_folder(include)
        library = library_of(include)
        if target is not None and target not in folders:
            found.append(f"{path}: {folder} may not know {target} ({include})")
        elif (
            target is None and library is not None and library not in libraries
        ):
            found.append(f"{path}: {folder} may not know {library} ({include})")
    return found


def test_every_include_follows_an_arrow():
    found = []
    for name in sources():
        found += violations(name, (ROOT / name).read_text())
    assert not found, "\n".join(found)


def test_sentencepiece_and_abseil_never_meet():
    for name in sources():
        includes = INCLUDE.findall((ROOT / name).read_text())
        kinds = {library_of(i) for i in includes}
        assert not {"sentencepiece", "absl"} <= kinds, name


def test_torch_headers_are_per_operator():
    heavy = {"torch/torch.h", "ATen/ATen.h", "torch/all.h"}
    for name in sources():
        includes = set(INCLUDE.findall((ROOT / name).read_text()))
        assert not includes & heavy, name


@pytest.mark.parametrize(
    "path, include",
    [
        ("batching/batcher.h", "model/policy.h"),
        ("model/policy.cc", "google/protobuf/message.h"),
        ("model/transform/x.cc", "model/checkpoint/weights.h"),
        ("clients/cpp/x.cc", "ATen/ATen.h"),
        ("server/x.cc", "grpcpp/server.h"),
        ("server/x.cc", "boost/asio/io_context.hpp"),
        ("server/rpc/x.cc", "msgpack.hpp"),
        ("server/websocket/x.cc", "grpcpp/server.h"),
        ("server/x.cc", "tests/support/fake.h"),
        ("model/kernels/x.cu", "absl/status/status.h"),
    ],
)
def test_a_forbidden_include_is_found(path, include):
    assert violations(path, f'#include "{include}"\n')
