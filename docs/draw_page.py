"""Take the screenshot of the page for the README: `python docs/draw_page.py`, after `make run`.

Further arguments go to `cxr app`: `python docs/draw_page.py --model artifacts/ensemble/model`. Needs chromium.
"""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from playwright.sync_api import sync_playwright

SCREENSHOT = Path(__file__).with_name("page.jpeg")
WIDTH, HEIGHT = 1180, 1300
TIMEOUT = 300


def main() -> None:
    """Write docs/page.jpeg."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "cxr.cli.main",
        "app",
        "--params",
        "params.yaml",
        "--port",
        str(port),
        *sys.argv[1:],
    ]
    server = subprocess.Popen(command)
    try:
        _wait(f"http://127.0.0.1:{port}/_stcore/health", server)
        _shoot(f"http://127.0.0.1:{port}")
    finally:
        server.terminate()
        server.wait()


def _wait(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + TIMEOUT
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    sys.exit("the page does not start")


def _shoot(url: str) -> None:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium") or shutil.which("google-chrome"), args=["--no-sandbox"]
        )
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.set_default_timeout(1000 * TIMEOUT)
        page.goto(url)
        page.get_by_role("button", name="Viral pneumonia").click()
        page.get_by_text("calibrated probability of pneumonia").wait_for()
        page.get_by_text("Show what counted").click()
        page.get_by_alt_text("The film with Grad-CAM").wait_for()
        page.get_by_test_id("stStatusWidget").wait_for(state="detached")
        page.mouse.move(0, 0)
        page.wait_for_timeout(1000)
        page.screenshot(path=SCREENSHOT, type="jpeg", quality=75)
        browser.close()


if __name__ == "__main__":
    main()
