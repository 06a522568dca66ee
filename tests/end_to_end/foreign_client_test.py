# SPDX-License-Identifier: Apache-2.0
"""Clients that were not written here get actions: grpcurl, from the proto alone
on the public port, and from reflection on the admin port."""

import base64
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from google.protobuf import json_format
from server_process import ROOT
from serving import request_for


@pytest.fixture(scope="module")
def grpcurl():
    beside = pathlib.Path(sys.executable).parent / "grpcurl"
    found = str(beside) if beside.exists() else shutil.which("grpcurl")
    if not found:
        pytest.skip("SKIPPED: grpcurl is not installed")
    return found


FROM_PROTO = (
    *("-import-path", str(ROOT / "proto")),
    *("-proto", "piserve/v1/policy.proto"),
)


def call(grpcurl, address, flags, method, message=None):
    done = subprocess.run(
        [
            *(grpcurl, "-plaintext", "-max-time", "30", *flags),
            *("-d", "@", address, method),
        ],
        input=message or "{}",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("listener", ["public", "admin"])
def test_grpcurl_gets_the_actions(
    grpcurl, libero_server, libero, libero_info, listener
):
    address = getattr(libero_server.addresses, listener)
    flags = FROM_PROTO if listener == "public" else ()
    recording = libero.recordings[0]
    message = json_format.MessageToJson(request_for(recording, libero_info))
    reply = json.loads(
        call(
            grpcurl,
            address,
            flags,
            "piserve.v1.PolicyService/Infer",
            f'{{"observation": {message}}}',
        )
    )
    sent = reply["result"]["actions"]
    actions = np.frombuffer(base64.b64decode(sent["data"]), "<f4")
    difference = recording.difference(
        actions.reshape(sent["shape"]).astype(np.float64)
    )
    assert difference.within, difference


def test_reflection_lists_the_service_on_the_admin_port_only(
    grpcurl, libero_server
):
    def services(address):
        return subprocess.run(
            [grpcurl, "-plaintext", address, "list"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    admin = services(libero_server.addresses.admin)
    assert "piserve.v1.PolicyService" in admin.stdout.split()
    for other in ("public", "probe"):
        done = services(getattr(libero_server.addresses, other))
        assert done.returncode != 0
        assert "reflection" in done.stderr


def test_info_and_errors_read_well_from_grpcurl(grpcurl, libero_server):
    info = json.loads(
        call(
            grpcurl,
            libero_server.addresses.public,
            FROM_PROTO,
            "piserve.v1.PolicyService/GetPolicyInfo",
        )
    )
    assert info["policies"][0]["actionHorizon"] == 10
    refused = subprocess.run(
        [
            *(grpcurl, "-plaintext", *FROM_PROTO, "-d", "{}"),
            libero_server.addresses.public,
            "piserve.v1.PolicyService/Infer",
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode != 0
    assert "InvalidArgument" in refused.stderr
