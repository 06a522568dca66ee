# SPDX-License-Identifier: Apache-2.0
"""Writes piserve.json, the Grafana dashboard, from panels.py.

    python3 deploy/grafana/dashboard.py            write it
    python3 deploy/grafana/dashboard.py --check    exit 1 if it is another

Needs nothing but Python.
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

from panels import ROWS, Panel

FILE = pathlib.Path(__file__).with_name("piserve.json")
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH = 24  # Grafana's columns


def field_config(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_above is not None:
        steps.append({"color": "red", "value": panel.red_above})
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.minimum is not None:
        defaults["min"] = panel.minimum
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "fillOpacity": 25 if panel.stacked else 5,
            "lineWidth": 1,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none"},
        }
    return {"defaults": defaults, "overrides": []}


def options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {
            "colorMode": "value",
            "graphMode": "area",
            "reduceOptions": reduce,
        }
    return {
        "legend": {
            "displayMode": "table",
            "placement": "bottom",
            "calcs": ["lastNotNull", "max"],
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def panel_json(panel: Panel, identity: int, x: int, y: int) -> dict[str, Any]:
    height = 4 if panel.kind == "stat" else 8
    return {
        "id": identity,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.help,
        "datasource": SOURCE,
        "gridPos": {"h": height, "w": panel.width, "x": x, "y": y},
        "fieldConfig": field_config(panel),
        "options": options(panel),
        "targets": [
            {
                "refId": chr(ord("A") + i),
                "datasource": SOURCE,
                "expr": expression,
                "legendFormat": legend,
            }
            for i, (legend, expression) in enumerate(panel.targets.items())
        ],
    }


def panels_json() -> list[dict[str, Any]]:
    out: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        out.append(
            {
                "id": len(out) + 1,
                "type": "row",
                "title": title,
                "collapsed": False,
                "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y},
                "panels": [],
            }
        )
        y += 1
        x = 0
        for panel in row:
            if x + panel.width > WIDTH:
                x, y = 0, y + out[-1]["gridPos"]["h"]
            out.append(panel_json(panel, len(out) + 1, x, y))
            x += panel.width
        y += out[-1]["gridPos"]["h"]
    return out


def variable(
    name: str, label: str, query: str, several: bool
) -> dict[str, Any]:
    return {
        "name": name,
        "label": label,
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": name},
        "refresh": 2,
        "sort": 1,
        "includeAll": several,
        "multi": several,
        **({"current": {"text": "All", "value": "$__all"}} if several else {}),
    }


def dashboard_json() -> dict[str, Any]:
    return {
        "uid": "piserve",
        "title": "piserve",
        "description": "Latency, batching, queue, deadlines and GPU.",
        "tags": ["piserve"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": {"from": "now-30m", "to": "now"},
        "timezone": "browser",
        "templating": {
            "list": [
                {
                    "name": "datasource",
                    "label": "Prometheus",
                    "type": "datasource",
                    "query": "prometheus",
                },
                variable(
                    "job", "Job", "label_values(piserve_ready, job)", False
                ),
                variable(
                    "instance",
                    "Server",
                    'label_values(piserve_ready{job="$job"}, instance)',
                    True,
                ),
            ]
        },
        "panels": panels_json(),
    }


def as_text(dashboard: dict[str, Any]) -> str:
    """JSON, a member a line and a panel a line."""
    panels = ",\n".join(json.dumps(panel) for panel in dashboard["panels"])
    members = [
        f"{json.dumps(name)}: "
        + (f"[\n{panels}\n]" if name == "panels" else json.dumps(value))
        for name, value in dashboard.items()
    ]
    return "{\n" + ",\n".join(members) + "\n}\n"


def main() -> int:
    text = as_text(dashboard_json())
    if sys.argv[1:] == ["--check"]:
        if FILE.exists() and FILE.read_text() == text:
            return 0
        print(f"{FILE.name} is not what {__file__} writes", file=sys.stderr)
        return 1
    FILE.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
