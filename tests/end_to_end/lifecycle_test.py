# SPDX-License-Identifier: Apache-2.0
"""Start, full queue, credentials, broken weights, and the end by SIGTERM."""

import hashlib
import json
import subprocess
import threading
import time

import grpc
import numpy as np
import piserve
import pytest
from piserve import PolicyClient
from piserve._proto import policy_pb2
from recorded import GOLDEN, read_safetensors
from server_process import LISTENERS, metrics
from serving import (
    PATIENT,
    RawClient,
    Refusal,
    assert_equal_to_openpi,
    binary,
    config_text,
    in_threads,
    request_for,
    serving,
    total,
    wait_until,
    write_config,
)

EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED
UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


# ---------------------------------------------------------------- wrong flags


@pytest.mark.parametrize(
    ("flag", "value", "want"),
    [
        ("port", "99999", "want 0 to 65535"),
        ("port", "-1", "want 0 to 65535"),
        ("public_address", "127.0.0.1:99999", "want host:port"),
        ("probe_address", "here", "want host:port"),
        ("admin_address", ":1", "want host:port"),
        ("http_address", "127.0.0.1", "want host:port"),
        ("websocket_address", "8000", "want host:port"),
        ("log_level", "loud", "want debug, info"),
    ],
)
def test_a_wrong_flag_is_refused_by_its_name(flag, value, want):
    done = subprocess.run(
        [binary("piserve_test_server"), f"--{flag}={value}"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert f"--{flag}: got" in done.stderr
    assert value in done.stderr and want in done.stderr


def test_help_is_an_answer_and_about_the_program_s_own_flags():
    done = subprocess.run(
        [binary("piserve_test_server"), "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    assert "  --port\n      Port of the public address\n" in done.stdout
    assert "--flagfile" not in done.stdout


# --------------------------------------------------------------------- bounds


def test_full_queue_says_when_to_come_back(tmp_path, libero):
    text = config_text(
        "pi0_libero_tiny",
        **{"predicted_ms: 2000": "predicted_ms: 20000 rows: 1"},
    )
    recording = libero.recordings[0]
    with serving(write_config(tmp_path, text)) as server:
        with RawClient(server.addresses.public) as client:
            info = client.info().policies[0]
            answers = in_threads(
                24, lambda _: client.infer(request_for(recording, info))
            )
        refused = [a for a in answers if isinstance(a, Refusal)]
        served = [a for a in answers if not isinstance(a, Refusal)]
        assert refused and served
        for answer in served:
            assert_equal_to_openpi(recording, answer)
        for answer in refused:
            assert answer.code == EXHAUSTED
            assert answer.reason.startswith(("QUEUE_", "CLIENT_"))
            assert answer.retry_after > 0
            assert int(answer.trailers["grpc-retry-pushback-ms"]) > 0


# ---------------------------------------------------------------- credentials


def test_credentials_decide_who_may_ask(tmp_path, libero):
    keys = "".join(
        f'api_keys {{ identity: "{who}" '
        f'key_sha256: "{hashlib.sha256(key.encode()).hexdigest()}" '
        f"{policies} }}\n"
        for who, key, policies in (
            ("arm", "open", ""),
            ("guest", "shut", 'policies: "other"'),
        )
    )
    other = config_text(
        "pi0_libero_tiny", **{'name: "libero"': 'name: "other"'}
    )
    other, _ = other.split("limits {")
    text = config_text("pi0_libero_tiny", other + keys, **PATIENT)
    recording = libero.recordings[0]
    with serving(write_config(tmp_path, text)) as server:
        address = server.addresses.public
        with RawClient(address) as client:
            assert client.info().code == grpc.StatusCode.UNAUTHENTICATED
        with PolicyClient(
            address, policy="libero", api_key="open", timeout=30
        ) as client:
            reply = client.infer(recording.observation, noise=recording.noise)
            assert recording.difference(reply["actions"]).within
        for key, code in (
            (None, grpc.StatusCode.UNAUTHENTICATED),
            ("wrong", grpc.StatusCode.UNAUTHENTICATED),
            ("shut", grpc.StatusCode.PERMISSION_DENIED),
        ):
            with PolicyClient(address, policy="libero", api_key=key) as client:
                with pytest.raises(piserve.NotAllowed) as caught:
                    client.infer(recording.observation)
                assert caught.value.code == code
                assert caught.value.reason


# ------------------------------------------------------------- broken weights


def test_actions_that_are_not_finite_never_leave(tmp_path, libero):
    """One column of state_proj overflows for all states but the mean."""
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    source = GOLDEN / "tiny_pi0" / "float32" / "model.safetensors"
    weight = read_safetensors(source)["state_proj.weight"]
    broken = weight.copy()
    broken[:, 7] = 3e38
    data = source.read_bytes()
    assert data.count(weight.tobytes()) == 1
    (folder / "model.safetensors").write_bytes(
        data.replace(weight.tobytes(), broken.tobytes())
    )
    mean = json.loads(
        (
            GOLDEN
            / "tiny_pi0/assets/physical-intelligence/libero/norm_stats.json"
        ).read_text()
    )["norm_stats"]["state"]["mean"][7]
    text = config_text(
        "pi0_libero_tiny",
        **{f"{GOLDEN}/tiny_pi0/float32": str(folder)} | PATIENT,
    )
    with (
        serving(write_config(tmp_path, text)) as server,
        RawClient(server.addresses.public) as client,
    ):
        info = client.info().policies[0]
        messages = []
        for index, value in enumerate((mean, 1e3, mean, 1e3)):
            request = request_for(
                libero.recordings[0], info, request_id=str(index)
            )
            request.state[7] = value
            messages.append(
                policy_pb2.InferStreamRequest(
                    observation=request, timeout_us=30_000_000
                )
            )
        answers = client.stream(messages)
        for sound in ("0", "2"):
            (result,) = answers[sound]
            assert not isinstance(result, Refusal), result
            values = np.frombuffer(result.actions.data, "<f4")
            assert np.isfinite(values).all()
        for unsound in ("1", "3"):
            (refusal,) = answers[unsound]
            assert refusal.code == grpc.StatusCode.INTERNAL
            assert refusal.reason == "NON_FINITE_OUTPUT"
        samples = metrics(server.get("/metrics"))
        withheld = [
            value
            for name, value in samples.items()
            if name.startswith("piserve_outputs_withheld_total")
        ]
        assert sum(withheld) == 2


@pytest.mark.parametrize(
    ("spoil", "names"),
    [
        (lambda data: data[:-1000], "model.safetensors"),
        (lambda data: data[:4], "model.safetensors"),
        (
            lambda data: data.replace(b"state_proj.bias", b"state_prox.bias"),
            "state_pro",
        ),
    ],
)
def test_wrong_weights_refuse_to_start(tmp_path, spoil, names):
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    source = GOLDEN / "tiny_pi0" / "float32" / "model.safetensors"
    (folder / "model.safetensors").write_bytes(spoil(source.read_bytes()))
    text = config_text(
        "pi0_libero_tiny",
        **{f"{GOLDEN}/tiny_pi0/float32": str(folder)} | PATIENT,
    )
    done = start_and_fail(write_config(tmp_path, text))
    assert names in done


@pytest.mark.parametrize(
    ("old", "new", "names"),
    [
        ('policy_config: "pi0_libero"', 'policy_config: "pi9"', "pi9"),
        (
            'policy_config: "pi0_libero"',
            'policy_config: "pi05_libero"',
            "pi05",
        ),
        ("predicted_ms: 2000", "predicted_sm: 2000", "predicted_sm"),
        ("precision: FLOAT32", "", "precision"),
    ],
)
def test_wrong_configuration_refuses_to_start(tmp_path, old, new, names):
    text = config_text("pi0_libero_tiny", **{old: new})
    assert names in start_and_fail(write_config(tmp_path, text))


def start_and_fail(*flags, **addresses):
    """What the server said when it refused to start."""
    listen = dict.fromkeys(LISTENERS, "127.0.0.1:0") | addresses
    done = subprocess.run(
        [
            *(binary("policy_server"), *flags),
            *(f"--{name}_address={at}" for name, at in listen.items()),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode not in (0, -6, -11), done.stderr
    return done.stdout + done.stderr


# -------------------------------------------------------------------- SIGTERM


def test_sigterm_answers_what_was_accepted_and_turns_others_away(
    tmp_path, libero
):
    """Promise 5 of docs/contract.md."""
    recording = libero.recordings[0]
    flag = write_config(tmp_path, config_text("pi0_libero_tiny", **PATIENT))
    with serving(flag) as server:
        address = server.addresses.public
        with RawClient(address) as robots, RawClient(address) as late:
            info = robots.info().policies[0]
            message = request_for(recording, info)
            late.info()  # connects
            started = threading.Barrier(4)
            answers = []

            def accepted(_):
                started.wait()
                answers.append(robots.infer(message, timeout=30))

            def end(_):
                started.wait()
                time.sleep(0.15)  # the robots' requests are in by then
                server.terminate()
                time.sleep(0.05)
                return late.infer(message)

            turned_away = in_threads(
                4, lambda index: (accepted if index else end)(index)
            )[0]
        assert server.wait(30) == 0
        assert len(answers) == 3
        for answer in answers:
            assert_equal_to_openpi(recording, answer)
        assert isinstance(turned_away, Refusal)
        assert turned_away.code == UNAVAILABLE
        if turned_away.reason:  # else the connection was gone already
            assert turned_away.reason == "DRAINING"
            assert turned_away.retry_after == 0


@pytest.mark.parametrize(("later", "code"), [(0.0, 0), (1.2, 143)])
def test_a_second_signal_ends_the_process_but_not_the_firsts_twin(
    libero, later, code
):
    """Promise 5: who stops a process group may signal a process twice."""
    flags = ("--policy=hash", "--wave_time=3s", "--predicted_limit=20s")
    with (
        serving(*flags, program="piserve_test_server") as server,
        RawClient(server.addresses.public) as robot,
    ):
        message = request_for(libero.recordings[0], robot.info().policies[0])

        def end(_):
            wait_until(lambda: total(server, "piserve_batch_rows_count") == 1)
            server.terminate()
            time.sleep(later)
            server.terminate()
            return server.wait(30)

        calls = (lambda _: robot.infer(message), end)
        answer, ended = in_threads(2, lambda index: calls[index](index))
        assert ended == code
        assert isinstance(answer, Refusal) == (code != 0)


def test_a_port_in_use_refuses_to_start(tmp_path, libero_server):
    flag = write_config(tmp_path, config_text("pi0_libero_tiny", **PATIENT))
    taken = libero_server.addresses.public
    assert taken in start_and_fail(flag, public=taken)


def test_an_address_that_others_reach_needs_tls_or_a_word(tmp_path):
    flag = write_config(tmp_path, config_text("pi0_libero_tiny", **PATIENT))
    assert "insecure" in start_and_fail(flag, public="0.0.0.0:0")
