# SPDX-License-Identifier: Apache-2.0
"""What the dashboard shows: rows of panels, each with its expressions.

tests/deploy/live_test.py runs every expression against a real Prometheus.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

# $job is one job, $instance any of its servers. Recorded series know no
# instance.
JOB = 'job="$job"'
HERE = f'{JOB},instance=~"$instance"'
ASKED = f'{HERE},method!="GetPolicyInfo"'
WINDOW = "[$__rate_interval]"


@dataclasses.dataclass(frozen=True)
class Panel:
    """Expressions by legend ("{{label}}" or text), all in one unit."""

    title: str
    unit: str
    targets: dict[str, str]
    help: str
    kind: str = "timeseries"
    width: int = 8
    stacked: bool = False
    red_above: float | None = None
    minimum: float | None = 0
    maximum: float | None = None


def rate(metric: str, labels: str = HERE) -> str:
    return f"rate(piserve_{metric}{{{labels}}}{WINDOW})"


def total(metric: str, by: str = "", labels: str = HERE) -> str:
    grouping = f"sum by ({by})" if by else "sum"
    return f"{grouping} ({rate(metric, labels)})"


def quantile(part: float, metric: str, by: str = "", labels: str = HERE) -> str:
    inner = total(f"{metric}_bucket", f"{by}, le" if by else "le", labels)
    return f"histogram_quantile({part}, {inner})"


def quantiles(metric: str, labels: str = HERE) -> dict[str, str]:
    return {
        f"p{part * 100:g}": quantile(part, metric, labels=labels)
        for part in (0.5, 0.9, 0.99)
    }


def mean(metric: str, by: str) -> str:
    return f"{total(f'{metric}_sum', by)} / {total(f'{metric}_count', by)}"


def gauge(metric: str, by: str = "instance") -> str:
    return f"sum by ({by}) (piserve_{metric}{{{HERE}}})"


OK_ONLY = f'{ASKED},outcome="ok"'
# Waves by rows: what each bucket adds to the one below. 128 is the last.
ROW_BOUNDS = (1, 2, 4, 8, 16, 32, 64, 128)


def waves_by_rows() -> dict[str, str]:
    def up_to(bound: int) -> str:
        # Prometheus 3 writes le="1.0" where 2 keeps the page's le="1".
        labels = rf'{HERE},le=~"{bound}(\\.0)?"'
        return total("batch_rows_bucket", labels=labels)

    targets = {"1 row": up_to(1)}
    for low, high in itertools.pairwise(ROW_BOUNDS):
        first = low + 1
        name = f"{high} rows" if first == high else f"{first} to {high} rows"
        targets[name] = f"{up_to(high)} - {up_to(low)}"
    return targets


NO_GPU = "No data where the policies run on a CPU. "

ROWS: dict[str, Sequence[Panel]] = {
    "Now": (
        Panel(
            "Servers ready",
            "none",
            {"ready": f"sum(piserve_ready{{{HERE}}})"},
            "Servers that take requests.",
            "stat",
            4,
        ),
        Panel(
            "Requests",
            "reqps",
            {"requests": total("requests_completed_total", labels=ASKED)},
            "Final answers a second, refusals included.",
            "stat",
            4,
        ),
        Panel(
            "Server's errors, 5 min",
            "percentunit",
            {"errors": f"job:piserve_request_errors:ratio_rate5m{{{JOB}}}"},
            "Of all requests, those that ended with an error of the "
            "server's (deploy/prometheus/recording.yml). The budget is 0.1 %.",
            "stat",
            4,
            red_above=0.001,
        ),
        Panel(
            "Latency p50, 5 min",
            "s",
            {"p50": f"job:piserve_request_seconds:p50_5m{{{JOB}}}"},
            "Half of the answers were ready within this.",
            "stat",
            4,
        ),
        Panel(
            "Latency p99, 5 min",
            "s",
            {"p99": f"job:piserve_request_seconds:p99_5m{{{JOB}}}"},
            "From receipt to the answer handed to gRPC, answered requests.",
            "stat",
            4,
        ),
        Panel(
            "Rows a wave, 5 min",
            "none",
            {"rows": f"job:piserve_batch_rows:mean5m{{{JOB}}}"},
            "How many robots share one run of the network.",
            "stat",
            4,
        ),
    ),
    "Latency": (
        Panel(
            "Answered requests",
            "s",
            quantiles("request_seconds", OK_ONLY),
            "From receipt to the answer handed to gRPC.",
        ),
        Panel(
            "Stages, p50",
            "s",
            {"{{stage}}": quantile(0.5, "stage_seconds", "stage")},
            "Where a request's time goes. gpu is the time of the network, "
            "also on a CPU.",
        ),
        Panel(
            "Stages, p99",
            "s",
            {"{{stage}}": quantile(0.99, "stage_seconds", "stage")},
            "Where the slow ones lose it.",
        ),
        Panel(
            "Stages, mean",
            "s",
            {"{{stage}}": mean("stage_seconds", "stage")},
            "Means add up; percentiles do not.",
            stacked=True,
        ),
        Panel(
            "Network, mean of a wave",
            "s",
            {
                "{{device}} {{stage}}": mean(
                    "stage_device_seconds", "device, stage"
                )
            },
            "Vision, prefill and denoise of a wave.",
            stacked=True,
        ),
        Panel(
            "Outcomes, p99",
            "s",
            {
                "{{outcome}}": quantile(
                    0.99, "request_seconds", "outcome", ASKED
                )
            },
            "A refusal must be quick: rejected far below ok.",
        ),
    ),
    "Batching": (
        Panel(
            "Waves by rows",
            "ops",
            waves_by_rows(),
            "Launched waves a second.",
            stacked=True,
        ),
        Panel(
            "Padding",
            "percentunit",
            {
                "size {{size}}": f"{total('batch_padded_rows_total', 'size')} "
                f"/ on () group_left () ({total('batch_padded_rows_total')} "
                f"+ {total('batch_rows_sum')})"
            },
            "Of the rows that were computed, those that were nobody's, by the "
            "size that was run.",
            stacked=True,
        ),
        Panel(
            "Why waves were launched",
            "ops",
            {"{{reason}}": total("batch_launch_reason_total", "reason")},
            "full, deadline, idle (nothing better to do), ahead (behind a "
            "running wave), drain.",
            stacked=True,
        ),
        Panel(
            "Wave time by size, p50",
            "s",
            {
                "{{device}} size {{size}}": quantile(
                    0.5, "batch_seconds", "device, size"
                )
            },
            "Device time of a wave.",
        ),
        Panel(
            "Measured over predicted",
            "none",
            {"{{device}}": mean("predicted_error_ratio", "device")},
            "1 is right. The dispatch rule and admission trust predictions.",
        ),
        Panel(
            "Rows computed",
            "rowsps",
            {
                "for robots": total("batch_rows_sum"),
                "padding": total("batch_padded_rows_total"),
            },
            "Rows a second.",
            stacked=True,
        ),
    ),
    "Queue": (
        Panel(
            "Rows",
            "none",
            {
                "waiting {{instance}}": gauge("queue_rows"),
                "in flight {{instance}}": gauge("inflight_requests"),
            },
            "Waiting: accepted and not launched. In flight: not answered.",
        ),
        Panel(
            "Predicted wait",
            "s",
            {"{{instance}}": gauge("queue_predicted_seconds")},
            "Until the last waiting row would be answered; 250 ms is the "
            "default bound.",
        ),
        Panel(
            "Bytes held and connections",
            "none",
            {
                "bytes {{instance}}": gauge("queue_bytes"),
                "connections {{instance}}": gauge("connections"),
                "websockets {{instance}}": gauge("websocket_connections"),
            },
            "Bytes of unanswered requests; open connections.",
        ),
    ),
    "Deadlines and refusals": (
        Panel(
            "Deadline slack",
            "s",
            {
                f"p{part * 100:g} {{{{class}}}}": quantile(
                    part, "deadline_slack_seconds", "class"
                )
                for part in (0.01, 0.1, 0.5)
            },
            "Left of the deadline when the answer was ready; the low "
            "percentiles are the tight ones. Below 0: late, and withheld.",
            minimum=None,
        ),
        Panel(
            "Refused",
            "reqps",
            {"{{reason}}": total("requests_rejected_total", "reason")},
            "Never accepted, by reason (docs/contract.md).",
            stacked=True,
        ),
        Panel(
            "Dropped from the queue",
            "reqps",
            {
                "{{reason}} {{class}}": total(
                    "requests_dropped_total", "reason, class"
                )
            },
            "Accepted, and not computed: expired, cancelled, superseded, "
            "too old.",
            stacked=True,
        ),
        Panel(
            "Answers by status",
            "reqps",
            {"{{code}}": total("requests_completed_total", "code", ASKED)},
            "Every request ends in exactly one.",
            stacked=True,
        ),
        Panel(
            "Computed and withheld",
            "reqps",
            {"{{reason}}": total("outputs_withheld_total", "reason")},
            "late: after the deadline. non_finite_output must stay 0.",
        ),
        Panel(
            "Burn rate of the error budget",
            "none",
            {
                f"{what} {window}": f"job:piserve_{metric}:ratio_rate{window}"
                f"{{{JOB}}} / {budget}"
                for what, metric, budget in (
                    ("errors", "request_errors", 0.001),
                    ("slow", "slow_answers", 0.01),
                )
                for window in ("5m", "1h", "6h")
            },
            "1 spends the budget in 30 days; 14.4 over 1 h pages.",
            red_above=14.4,
        ),
    ),
    "GPU (no data on a CPU)": (
        Panel(
            "Busy",
            "percentunit",
            {
                "{{instance}} {{device}}": total(
                    "gpu_busy_seconds_total", "instance, device"
                )
            },
            NO_GPU + "Part of the time in which waves ran.",
            maximum=1,
        ),
        Panel(
            "Power",
            "watt",
            {
                "{{instance}} {{device}}": total(
                    "gpu_energy_joules_total", "instance, device"
                )
            },
            NO_GPU + "Joules a second.",
        ),
        Panel(
            "Memory",
            "bytes",
            {
                "{{instance}} {{device}} {{kind}}": gauge(
                    "gpu_memory_bytes", "instance, device, kind"
                )
            },
            NO_GPU + "By use.",
            stacked=True,
        ),
        Panel(
            "Energy a chunk",
            "joule",
            {
                "J": f"{total('gpu_energy_joules_total')} "
                f"/ {total('batch_rows_sum')}"
            },
            NO_GPU + "Joules for each row that a robot asked for.",
        ),
        Panel(
            "Captured graphs",
            "none",
            {"{{stage}}": gauge("graph_captured", "stage")},
            NO_GPU + "CUDA graphs by stage.",
        ),
        Panel(
            "Faults",
            "none",
            {
                "{{instance}} {{device}} {{kind}}": gauge(
                    "gpu_faults_total", "instance, device, kind"
                )
            },
            NO_GPU + "Nor while no device has failed. A device that failed "
            "stays out until the process is started anew.",
        ),
    ),
    "Process": (
        Panel(
            "CPU",
            "none",
            {
                "{{instance}}": "sum by (instance) (rate("
                f"process_cpu_seconds_total{{{HERE}}}{WINDOW}))"
            },
            "Cores in use.",
        ),
        Panel(
            "Memory",
            "bytes",
            {
                "{{instance}}": "sum by (instance) ("
                f"process_resident_memory_bytes{{{HERE}}})"
            },
            "Resident.",
        ),
        Panel(
            "What is served",
            "none",
            {
                "{{instance}} {{policy}} ({{policy_config}}, {{backend}}, "
                "{{precision}}) {{model_digest}}": (
                    f"piserve_model_info{{{HERE}}}"
                ),
                "{{instance}} version {{version}}, gcc {{compiler}}": (
                    f"piserve_build_info{{{HERE}}}"
                ),
            },
            "One line a policy, one a binary; always 1.",
        ),
    ),
}
