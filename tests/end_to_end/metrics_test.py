# SPDX-License-Identifier: Apache-2.0
"""The pages of the HTTP listener: the metrics are sound and add up."""

import collections
import concurrent.futures
import fnmatch
import math
import re
import shutil
import subprocess

import pytest
from piserve import InvalidObservation, PolicyClient, PolicyMismatch
from server_process import ROOT, metrics
from serving import (
    PATIENT,
    RawClient,
    config_text,
    request_for,
    run_client,
    serving,
    write_config,
)

CONTRACT = (ROOT / "docs" / "contract.md").read_text()
SECTION = CONTRACT.split("\n## Metrics\n")[1].split("\n## ")[0]
# A metric in `code`, or a pattern of some, and what stands in its braces.
CODE = re.compile(r"`([\w*]+)(?:{([^`]*)})?`")


def line_with(text):
    (line,) = (line for line in SECTION.splitlines() if text in line)
    return line


# The one list of all metrics; process_* is a family of others.
LISTED = {
    f"piserve_{name}": braces
    for name, braces in CODE.findall(line_with("`build_info{"))
    if name != "process_*"
}
NAMES = frozenset(LISTED)
GPU_ONLY = frozenset(
    f"piserve_{name}"
    for name, _ in CODE.findall(
        line_with("exist only where a GPU is").split(" exist only")[0]
    )
)
# Begins with the first fault, after which a server of one policy ends.
FAULTS = frozenset({"piserve_gpu_faults_total"})


def labels_in(braces):
    """Of {method,code} both; of {stage=parse,decode} stage."""
    return {braces.split("=")[0]} if "=" in braces else set(braces.split(","))


def labels_of_contract():
    """By metric: what the list says, and what `carry` adds to patterns."""
    labels = {
        name: labels_in(braces) if braces else set()
        for name, braces in LISTED.items()
    }
    for clause in re.split(r"[.;] ", line_with("carry `device`")):
        patterns, carries, label = clause.rpartition(" carry ")
        if not carries:
            continue
        for pattern, _ in CODE.findall(patterns):
            for name in fnmatch.filter(labels, f"piserve_{pattern}"):
                labels[name].add(label.strip("`."))
    return labels


def labels_of(page):
    """By metric: the sets of labels that its series have, le apart."""
    labels = collections.defaultdict(set)
    for name in names_of(page):
        sample = rf"^{name}(?:_bucket|_sum|_count)?(?:{{(.*)}})? "
        for found in re.findall(sample, page, re.MULTILINE):
            of_series = set(re.findall(r'(\w+)="', found)) - {"le"}
            labels[name].add(frozenset(of_series))
    return labels


def stages_of(page):
    series = re.findall(
        r'^piserve_stage_seconds_count{stage="(\w+)"}', page, re.MULTILINE
    )
    return set(series)


def latency_buckets():
    """In seconds: those of requests and waves, and those of stages."""
    line = line_with("Latency buckets in seconds: ")
    listed, added = line.split(": ")[1].split("; stages add ")
    buckets = sorted(float(bound) for bound in listed.split())
    extra = [float(us) / 1e6 for us in re.findall(r"\d+", added)]
    return buckets, sorted(extra + buckets)


def names_of(page):
    return set(re.findall(r"^# TYPE (piserve_\w+) ", page, re.MULTILINE))


def buckets_of(page, name):
    """The bounds of a histogram, which all its series must share."""
    series = collections.defaultdict(list)
    for labels, bound in re.findall(
        rf'^{name}_bucket{{(.*?),?le="([^"]+)"}} ', page, re.MULTILINE
    ):
        series[labels].append(float(bound))
    (bounds,) = {tuple(bounds) for bounds in series.values()}
    assert bounds[-1] == math.inf
    return list(bounds[:-1])


def total(samples, name):
    return sum(
        value
        for sample, value in samples.items()
        if sample.split("{", 1)[0] == name
    )


@pytest.fixture(scope="module")
def used_server(libero, tmp_path_factory):
    """After 6 good requests, two at a time, 3 bad ones and one too old."""
    folder = tmp_path_factory.mktemp("used")
    config = write_config(folder, config_text("pi0_libero_tiny", **PATIENT))
    with serving(config, f"--record={folder / 'records'}") as server:
        use(server, libero.recordings[0])
        yield server


def use(server, recording):
    observation = recording.observation
    with PolicyClient(server.addresses.public, timeout=30) as client:
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
    with RawClient(server.addresses.public) as raw:
        info = raw.info().policies[0]
        bad = request_for(recording, info)
        bad.state.pop()
        raw.infer(bad)
        old = request_for(recording, info)
        old.age_us, old.max_age_us = 2, 1
        assert raw.infer(old).reason == "TOO_OLD"


@pytest.fixture(scope="module")
def gpu_server():
    """After 12 requests to what says that it is a GPU."""
    with serving("--gpu", program="piserve_test_server") as server:
        load = ("--policy=libero", "--robots=3", "--rate=2", "--duration=1s")
        done = run_client(server, "policy_load", *load)
        assert done.returncode == 0, done.stdout + done.stderr
        yield server


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
    seconds = "piserve_request_seconds_count"
    for outcome, count in {"ok": 6, "rejected": 3, "dropped": 1}.items():
        sample = f'{seconds}{{method="Infer",outcome="{outcome}"}}'
        assert samples[sample] == count
    assert total(samples, seconds) == total(
        samples, "piserve_requests_completed_total"
    )
    for stage in ("decode", "queue", "form", "gpu", "post"):
        sample = f'piserve_stage_seconds_count{{stage="{stage}"}}'
        assert samples[sample] == 6, stage


def test_page_has_the_metrics_of_the_contract_and_no_others(used_server):
    page = used_server.get("/metrics")
    assert names_of(page) == NAMES - GPU_ONLY - FAULTS
    for name in names_of(page):
        assert f"# HELP {name} " in page
    assert "# TYPE process_resident_memory_bytes " in page


def test_page_of_a_gpu_has_its_metrics_too(gpu_server):
    assert names_of(gpu_server.get("/metrics")) >= GPU_ONLY | FAULTS


def test_labels_are_those_of_the_contract(used_server, gpu_server):
    want = labels_of_contract()
    for server in (used_server, gpu_server):
        for name, series in labels_of(server.get("/metrics")).items():
            assert series == {frozenset(want[name])}, name


def test_stages_are_those_of_the_contract(used_server):
    stages = set(LISTED["piserve_stage_seconds"].split("=")[1].split(","))
    copies = {"h2d", "d2h"}  # of a real GPU
    assert stages_of(used_server.get("/metrics")) == stages - copies


def test_buckets_are_those_of_the_contract(used_server):
    page = used_server.get("/metrics")
    requests, stages = latency_buckets()
    for name, want in (
        ("piserve_request_seconds", requests),
        ("piserve_batch_seconds", requests),
        ("piserve_stage_seconds", stages),
        ("piserve_stage_device_seconds", stages),
    ):
        assert buckets_of(page, name) == want, name


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
