# SPDX-License-Identifier: Apache-2.0
"""The pages of the HTTP listener: the metrics are sound and add up."""

import concurrent.futures
import shutil
import subprocess

import pytest
from piserve import InvalidObservation, PolicyClient, PolicyMismatch
from server_process import ROOT, metrics
from serving import RawClient, request_for

# docs/contract.md, "Metrics": those that a CPU server has.
NAMES = (
    "piserve_requests_received_total",
    "piserve_requests_completed_total",
    "piserve_requests_rejected_total",
    "piserve_request_seconds",
    "piserve_stage_seconds",
    "piserve_deadline_slack_seconds",
    "piserve_queue_rows",
    "piserve_queue_bytes",
    "piserve_queue_predicted_seconds",
    "piserve_inflight_requests",
    "piserve_batch_rows",
    "piserve_batch_seconds",
    "piserve_batch_launch_reason_total",
    "piserve_ready",
    "piserve_draining",
    "piserve_model_load_seconds",
    "piserve_warmup_seconds",
    "piserve_build_info",
    "piserve_model_info",
    "process_resident_memory_bytes",
)


def total(samples, name):
    return sum(
        value
        for sample, value in samples.items()
        if sample.split("{", 1)[0] == name
    )


@pytest.fixture(scope="module")
def used_server(libero_server, libero, libero_info):
    """After 6 good requests, two at a time, and 3 bad ones."""
    observation = libero.recordings[0].observation
    with PolicyClient(libero_server.addresses.public, timeout=30) as client:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(
                pool.map(
                    lambda seed: client.infer(observation, seed=seed),
                    range(6),
                )
            )
        for steps in (4, 5):
            with pytest.raises(PolicyMismatch):
                client.infer(observation, num_steps=steps)
    with RawClient(libero_server.addresses.public) as raw:
        request = request_for(libero.recordings[0], libero_info)
        request.state.pop()
        raw.infer(request)
    return libero_server


def test_page_passes_promtool(used_server):
    packed = ROOT / ".deps" / "prometheus" / "usr" / "bin" / "promtool"
    promtool = str(packed) if packed.exists() else shutil.which("promtool")
    if not promtool:
        pytest.skip("SKIPPED: promtool is not installed")
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=used_server.get("/metrics"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_counters_add_up(used_server):
    samples = metrics(used_server.get("/metrics"))
    received = total(samples, "piserve_requests_received_total")
    completed = total(samples, "piserve_requests_completed_total")
    in_flight = total(samples, "piserve_inflight_requests")
    assert received == completed + in_flight
    ok = 'piserve_requests_completed_total{code="OK",method="Infer"}'
    assert samples[ok] == 6
    assert total(samples, "piserve_batch_rows_sum") == 6
    assert total(samples, "piserve_requests_rejected_total") == 3
    assert in_flight == 0
    assert total(samples, "piserve_queue_rows") == 0
    assert total(samples, "piserve_ready") == 1


def test_every_request_is_in_the_latency_histograms(used_server):
    samples = metrics(used_server.get("/metrics"))
    for name in (
        "piserve_stage_seconds_count",
        "piserve_request_seconds_count",
    ):
        assert total(samples, name) > 0
    gpu = [
        value
        for sample, value in samples.items()
        if sample.startswith("piserve_stage_seconds_count")
        and 'stage="gpu"' in sample
    ]
    assert sum(gpu) == 6


@pytest.mark.parametrize("name", NAMES)
def test_metric_is_there_with_its_help(used_server, name):
    page = used_server.get("/metrics")
    assert f"# HELP {name} " in page
    assert f"# TYPE {name} " in page


def test_no_client_string_is_a_label(libero_server, libero):
    with PolicyClient(
        libero_server.addresses.public, robot_id="robot-of-mine", timeout=30
    ) as client:
        client.infer(libero.recordings[0].observation)
        with pytest.raises(InvalidObservation):
            client.infer({"observation/state": [1.0]})
    assert "robot-of-mine" not in libero_server.get("/metrics")


def test_pages_for_people_and_load_balancers(libero_server):
    assert libero_server.get("/healthz").strip().lower() == "ok"
    assert "<html" in libero_server.get("/").lower()
