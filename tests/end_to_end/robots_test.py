# SPDX-License-Identifier: Apache-2.0
"""Many robots at once: every answer is its own observation's.

PISERVE_SOAK_SECONDS sets how long each lasts (10 unless given; 60 in a soak).
"""

import json
import os
import time

import pytest
import recorded
from piserve import DeadlineExceeded, PolicyClient, QueueFull
from server_process import metrics
from serving import (
    PATIENT,
    config_text,
    in_threads,
    run_client,
    serving,
    write_config,
)

SECONDS = float(os.environ.get("PISERVE_SOAK_SECONDS", "10"))


# As shipped, and with waves of up to four rows only: of several sizes the
# dispatch rule takes the smallest whose time per row is near the best, perhaps
# one row, and then no answer could be crossed inside a wave.
@pytest.fixture(params=["[1, 2, 4, 8]", "[4]"], ids=["shipped", "waves of 4"])
def tiny_server(request, tmp_path):
    sizes = {"batch_sizes: [1, 2, 4, 8]": f"batch_sizes: {request.param}"}
    text = config_text("pi0_libero_tiny", **sizes | PATIENT)
    with serving(write_config(tmp_path, text)) as server:
        server.together = request.param == "[4]"
        yield server


def test_eight_robots_on_tiny_each_get_their_own_actions(tiny_server, libero):
    """Each sends openpi's observations in turn, starting at another one, and
    holds each answer against openpi's for that observation and noise. On a busy
    machine some may be refused, but none is served wrong and none starves."""
    answered, refused, faults, served = [], [], [], set()
    end = time.monotonic() + SECONDS

    def robot(index):
        address = tiny_server.addresses.public
        turn = index
        with PolicyClient(
            address, robot_id=f"robot-{index}", timeout=30
        ) as client:
            while time.monotonic() < end:
                recording = libero.recordings[turn % len(libero.recordings)]
                turn += 1
                try:
                    reply = client.infer(
                        recording.observation, noise=recording.noise
                    )
                except (QueueFull, DeadlineExceeded) as refusal:
                    refused.append(refusal)
                    continue
                difference = recording.difference(reply["actions"])
                if not difference.within:
                    faults.append((index, turn, difference))
                answered.append(reply["wave_rows"])
                served.add(index)

    in_threads(8, robot)
    print(
        f"{len(answered)} answers in {SECONDS:.0f} s, {len(refused)} refused, "
        f"mean wave of a request {sum(answered) / len(answered):.2f} rows"
    )
    assert faults == []
    assert served == set(range(8))
    if tiny_server.together:
        assert max(answered) > 1, "robots were never answered together"


def test_the_recordings_tell_robots_apart(libero):
    """Else a crossed answer would pass the test above."""
    for one in libero.recordings:
        for other in libero.recordings:
            if one is not other:
                crossed = recorded.difference(one.actions, other.actions, "pi0")
                assert not crossed.within


@pytest.fixture(scope="module")
def load(tmp_path_factory):
    """64 robots, each at 10 Hz, on a policy that answers a hash of what it was
    asked, and whose wave of B rows takes 6 + 0.5 B ms: the report and the
    metrics."""
    report = tmp_path_factory.mktemp("load") / "report.json"
    with serving("--policy=hash", program="piserve_test_server") as server:
        done = run_client(
            server,
            "policy_load",
            *("--robots=64", "--rate=10", "--loop=closed"),
            "--timeout=30s",
            f"--duration={SECONDS:.0f}s",
            "--verify=hash",
            f"--json={report}",
            timeout=SECONDS + 120,
        )
        print(done.stdout)
        assert done.returncode == 0, done.stdout + done.stderr
        page = server.get("/metrics")
    return json.loads(report.read_text()), metrics(page)


def test_no_reply_of_64_robots_is_lost_doubled_or_crossed(load):
    report, _ = load
    assert report["wrong"] == 0
    assert report["lost"] == 0
    assert report["dropped"] == 0
    assert report["right"] == report["sent"] > 64
    assert set(report["statuses"]) == {"OK"}


def test_64_robots_share_waves(load):
    report, _ = load
    assert report["mean_wave_rows"] >= 4


def test_metrics_of_64_robots_add_up(load):
    report, samples = load

    def total(name, *labels):
        return sum(
            value
            for sample, value in samples.items()
            if sample.split("{", 1)[0] == name
            and all(label in sample for label in labels)
        )

    infer = 'method="Infer"'
    received = total("piserve_requests_received_total", infer)
    completed = total("piserve_requests_completed_total", infer)
    assert received == completed
    assert total("piserve_inflight_requests") == 0
    served = total("piserve_requests_completed_total", infer, 'code="OK"')
    assert served == report["sent"]
    rows = total("piserve_batch_rows_sum")
    waves = total("piserve_batch_rows_count")
    assert rows == served
    assert rows / waves >= 4
