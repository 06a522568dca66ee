# SPDX-License-Identifier: Apache-2.0
"""Runs ctest and pytest and prints one summary of both.

Usage: run_all.py BUILD_FOLDER. Exits non-zero if a test failed or if a runner
ran none.
"""

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree


def run(title, command, report, environment=None):
    """Runs one runner; returns (title, passed, failed, skipped, seconds)."""
    print(f"\n=== {title}", flush=True)
    start = time.monotonic()
    if os.path.exists(report):
        os.remove(report)
    subprocess.run(command, env={**os.environ, **(environment or {})})
    failed, skipped, names = 0, [], []
    total = 0
    if os.path.exists(report):
        for case in ElementTree.parse(report).iter("testcase"):
            total += 1
            name = f"{case.get('classname') or ''}.{case.get('name')}"
            skip = case.find("skipped")
            if skip is not None or case.get("status") == "notrun":
                reason = skip.get("message", "") if skip is not None else ""
                skipped.append(f"{name}: {reason}")
            elif (
                case.find("failure") is not None
                or case.find("error") is not None
                or case.get("status") == "fail"
            ):
                failed += 1
                names.append(name)
    return {
        "title": title,
        "passed": total - failed - len(skipped),
        "failed": failed,
        "skipped": skipped,
        "names": names,
        "seconds": time.monotonic() - start,
    }


def main():
    build = os.path.abspath(sys.argv[1])
    results = [
        run(
            "ctest",
            [
                *("ctest", "--test-dir", build, "-j2", "--output-on-failure"),
                *("--no-tests=error", "--output-junit", f"{build}/ctest.xml"),
            ],
            f"{build}/ctest.xml",
        ),
        run(
            "pytest",
            [
                *(sys.executable, "-m", "pytest", "-q", "--durations=5"),
                *("--numprocesses=2", "--dist=loadfile"),
                *("--junitxml", f"{build}/pytest.xml", "-rs", "tests"),
            ],
            f"{build}/pytest.xml",
            {"PISERVE_BUILD": build},
        ),
    ]
    print("\n=== summary")
    for r in results:
        print(
            f"{r['title']:8} {r['passed']:4} passed {r['failed']:3} failed "
            f"{len(r['skipped']):3} skipped {r['seconds']:6.0f} s"
        )
        for name in r["names"]:
            print(f"  FAILED  {name}")
        for name in r["skipped"]:
            print(f"  skipped {name}")
    passed = sum(r["passed"] for r in results)
    failed = sum(r["failed"] for r in results)
    skipped = sum(len(r["skipped"]) for r in results)
    print(f"\n{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or any(r["passed"] == 0 for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
