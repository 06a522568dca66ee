# SPDX-License-Identifier: Apache-2.0
"""Looks at the status page with a real browser. Run by hand:

    apt-get install chromium && .venv/bin/pip install playwright==1.65.2
    .venv/bin/python tests/deploy/status_page_browser.py [OUT_FOLDER] [SECONDS]

Not part of `make test`: Chromium is 350 MB. Serves a policy that computes
nothing, puts it under load for SECONDS (default 30), and checks at three widths
that nothing is wider than the window, that the browser asks for nothing but the
page, that the page renews itself, and that it says so when the server is gone.
Leaves status_WIDTH.png in OUT_FOLDER (default: the current one).
"""

from __future__ import annotations

import pathlib
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "deploy" / "demo")]

from playwright.sync_api import Page, sync_playwright  # noqa: E402
from server_process import ServerProcess  # noqa: E402

BIN = ROOT / "build" / "dev" / "bin"
WIDTHS = (1180, 768, 390)


def load(server: ServerProcess, *flags: str) -> subprocess.Popen[bytes]:
    address = f"--address={server.addresses.public}"
    return subprocess.Popen(
        [str(BIN / "policy_load"), address, *flags], stdout=subprocess.DEVNULL
    )


def look(page: Page, url: str, out: pathlib.Path) -> None:
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.goto(url)
        wanted = page.evaluate("document.documentElement.scrollWidth")
        assert wanted <= width, f"{wanted} px wide in a window of {width}"
        page.screenshot(path=out / f"status_{width}.png", full_page=True)


def check_renewal(page: Page) -> None:
    page.evaluate("document.querySelector('main').id = 'old'")
    page.wait_for_selector("main:not(#old)")


def main() -> int:
    out = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    seconds = int(sys.argv[2]) if len(sys.argv) > 2 else 30
    asked: set[str] = set()
    errors: list[str] = []
    with (
        sync_playwright() as playwright,
        ServerProcess(BIN / "piserve_test_server", []) as server,
    ):
        server.wait_until_ready()
        url = f"http://{server.addresses.http}/"
        robots = [
            load(server, "--robots=8", "--rate=8", f"--duration={seconds}s")
        ]
        time.sleep(seconds / 3)
        robots.append(
            load(server, "--robots=30", "--rate=4", f"--duration={seconds}s")
        )
        time.sleep(seconds / 3)
        load(server, "--robots=2", "--duration=2s", "--timeout=20ms").wait()
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium", args=["--no-sandbox"]
        )
        page = browser.new_page()
        page.on("request", lambda request: asked.add(request.url))
        page.on("console", lambda message: errors.append(message.text))
        look(page, url, out)
        check_renewal(page)
        assert asked == {url}, asked
        assert not errors, errors
        for robot in robots:
            robot.kill()
            robot.wait()
        server.stop()
        page.wait_for_selector("text=does not answer")
        browser.close()
    print(f"well at {WIDTHS} px; pictures in {out.resolve()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
