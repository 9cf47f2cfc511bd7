"""The page in a real browser, started as a user starts it; screenshots are written to reports/screenshots."""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import pytest
from playwright.sync_api import BrowserContext, Page, expect, sync_playwright

from cxr.app.texts import format_percent
from cxr.images.decoding import decode_grey
from cxr.inference.predictor import Predictor
from cxr.models.metadata import ModelMetadata
from support import bad_images
from support.chest_models import BACTERIAL, HEALTHY, LETTER, VIRAL, Versions, write_versions
from support.dicom_files import SECRET, dicom_file
from support.loopback import START_SECONDS, free_port
from support.model_folders import THRESHOLD

# They need a browser; in `make test`, tests/app/test_page.py asks the page without a browser.
pytestmark = [pytest.mark.integration, pytest.mark.exhaustive]

BROWSER_OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
]
TIMEOUT = 120_000
"""Milliseconds; long, because the machine may be busy."""
WIDE, PHONE = (1280, 900), (390, 844)


@dataclass(frozen=True)
class Site:
    """The server of the page."""

    url: str
    versions: Versions
    process: subprocess.Popen[bytes]
    folder: Path

    def log(self) -> str:
        return (self.folder / "page.log").read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("page")
    versions, port = write_versions(root / "store"), free_port()
    folder = root / "server"
    (folder / "here").mkdir(parents=True)
    command = [
        *(sys.executable, "-m", "cxr.cli.main", "app", "--port", str(port), "--tracking_uri", versions.uri),
        *("--seconds", "2", "--max_megapixels", "10", "--max_files", "9"),
    ]
    with (folder / "page.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder / "here")
    site = Site(f"http://127.0.0.1:{port}", versions, process, folder)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not _responds(f"{site.url}/_stcore/health"):
            assert process.poll() is None and time.monotonic() < deadline, site.log()
            time.sleep(0.2)
        yield site
    finally:
        process.kill()
        process.wait()


def _responds(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="module")
def browser() -> Iterator[BrowserContext]:
    """One profile for all visits, so that Streamlit's scripts are loaded and compiled once."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no browser: apt-get install chromium")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=BROWSER_OPTIONS)
        yield chromium.new_context()
        chromium.close()


@pytest.fixture(scope="module")
def screenshots(repository: Path) -> Path:
    folder = repository / "reports" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture
def page(site: Site, browser: BrowserContext) -> Iterator[Page]:
    new_page = open_page(site, browser)
    yield new_page
    new_page.close()


def open_page(
    site: Site, browser: BrowserContext, size: tuple[int, int] = WIDE, scheme: Literal["light", "dark"] = "light"
) -> Page:
    page = browser.new_page()
    page.set_viewport_size({"width": size[0], "height": size[1]})
    page.emulate_media(color_scheme=scheme)
    page.set_default_timeout(TIMEOUT)
    expect.set_options(timeout=TIMEOUT)
    page.goto(site.url)
    page.get_by_text("Or look at a drawn example").wait_for()
    return page


def upload(page: Page, *files: tuple[str, bytes]) -> None:
    page.locator("input[type=file]").set_input_files(
        [{"name": name, "mimeType": "application/octet-stream", "buffer": data} for name, data in files]
    )


def take_screenshot(page: Page, path: Path) -> None:
    """Save the whole page as an image once it has finished running."""
    page.get_by_test_id("stStatusWidget").wait_for(state="detached")
    size = dict(page.viewport_size or {})
    height = page.get_by_test_id("stMain").evaluate("main => main.scrollHeight")
    page.set_viewport_size({"width": size["width"], "height": height})
    page.wait_for_timeout(300)
    page.screenshot(path=path)
    page.set_viewport_size({"width": size["width"], "height": size["height"]})


def expected(site: Site, data: bytes, model: str = "three_block") -> float:
    folders = site.versions.folders
    predictor = Predictor.load(folders.models / model, ModelMetadata.read(folders.evaluations / model))
    return predictor.predict([data])[0].probability


def as_dicom(data: bytes) -> bytes:
    """An image as an inverted DICOM file of 12 bits, which shows the same."""
    grey = decode_grey(data).astype(np.uint16)
    return dicom_file(
        (255 - grey) * 16, BitsStored=12, HighBit=11, PhotometricInterpretation="MONOCHROME1",
        WindowCenter="2040", WindowWidth="4081",
    )  # fmt: skip


def test_a_normal_image_and_one_with_pneumonia(site: Site, page: Page, screenshots: Path) -> None:
    upload(page, ("healthy.jpeg", HEALTHY))
    expect(page.get_by_text("● NORMAL")).to_be_visible()
    expect(page.get_by_text(format_percent(expected(site, HEALTHY))).first).to_be_visible()
    expect(page.get_by_alt_text(re.compile("The film as it came"))).to_be_visible()
    take_screenshot(page, screenshots / "normal.png")
    page.get_by_role("button", name="Remove healthy.jpeg").click()
    expect(page.get_by_text("● NORMAL")).to_have_count(0)
    upload(page, ("ill.jpeg", BACTERIAL))
    expect(page.get_by_text("▲ PNEUMONIA", exact=True)).to_be_visible()
    expect(page.get_by_text(format_percent(expected(site, BACTERIAL))).first).to_be_visible()
    take_screenshot(page, screenshots / "pneumonia.png")


def test_many_files_a_table_and_the_csv(site: Site, page: Page, screenshots: Path, tmp_path: Path) -> None:
    bad_images.truncated(tmp_path / "broken.jpeg")
    bad_images.bomb(tmp_path / "huge.png")
    files = {
        "=1+1.jpeg": BACTERIAL,
        "healthy": as_dicom(HEALTHY),
        "broken.jpeg": (tmp_path / "broken.jpeg").read_bytes(),
        "huge.png": (tmp_path / "huge.png").read_bytes(),
        "letter.jpeg": LETTER,
        "notes.txt": b"no picture",
    }
    upload(page, *files.items())
    with page.expect_download() as download:
        page.get_by_role("button", name="Download as CSV").click()
    rows = list(csv.DictReader(download.value.path().read_text().splitlines()))
    assert [row["path"] for row in rows] == ["'=1+1.jpeg", *list(files)[1:]]
    assert [row["label"] for row in rows] == ["PNEUMONIA", "NORMAL", "", "", "", ""]
    assert [row["error"].partition(":")[0] for row in rows] == [
        "", "", "truncated", "too_large", "no_chest_film", "not_an_image",
    ]  # fmt: skip
    assert float(rows[0]["probability"]) == pytest.approx(expected(site, BACTERIAL), abs=1e-9)
    assert float(rows[1]["probability"]) == pytest.approx(
        expected(site, HEALTHY), abs=0.02
    )  # the DICOM has other pixels
    assert {(row["version"], row["alias"], row["model"]) for row in rows} == {("1", "champion", "three_block")}
    for number, text in ((3, "it ends too early"), (4, "larger than this page takes"), (5, "No answer")):
        page.get_by_label("Film shown below").click()
        page.get_by_role("option", name=f"{number}: ").click()
        expect(page.get_by_test_id("stAlert").filter(has_text=text)).to_be_visible()
    take_screenshot(page, screenshots / "several.png")
    log = site.log()
    assert not any(name in log for name in [*files, SECRET])
    assert not list((site.folder / "here").rglob("*"))


def test_a_click_on_a_row_shows_its_image(page: Page) -> None:
    upload(page, ("first.jpeg", HEALTHY), ("second.jpeg", BACTERIAL))
    expect(page.get_by_role("heading", name="first.jpeg")).to_be_visible()
    table = page.get_by_test_id("stDataFrame").locator("canvas").first.bounding_box()
    assert table is not None
    page.mouse.click(table["x"] + 60, table["y"] + 88)
    expect(page.get_by_role("heading", name="second.jpeg")).to_be_visible()


def test_the_threshold_is_moved_and_grad_cam_is_shown_by_keyboard(site: Site, page: Page, screenshots: Path) -> None:
    upload(page, ("ill.jpeg", BACTERIAL))
    expect(page.get_by_text("▲ PNEUMONIA", exact=True)).to_be_visible()
    slider = page.get_by_role("slider", name="Threshold")
    slider.focus()
    page.keyboard.press("End")
    expect(page.get_by_text("● NORMAL")).to_be_visible()
    expect(page.get_by_text("sensitivity 0.0 %")).to_be_visible()
    page.get_by_role("button", name="Back to the model").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_text("▲ PNEUMONIA", exact=True)).to_be_visible()
    expect(slider).to_have_value(f"{100 * THRESHOLD:g}")
    page.get_by_role("switch", name=re.compile("Grad-CAM")).focus()
    page.keyboard.press("Space")
    overlay = page.get_by_alt_text(re.compile("The film with Grad-CAM"))
    expect(overlay).to_be_visible()
    take_screenshot(page, screenshots / "grad_cam.png")
    opaque = _pixels(page, overlay.get_attribute("src"))
    page.get_by_role("slider", name="Opacity").focus()
    page.keyboard.press("Home")
    expect(overlay).not_to_have_attribute("src", overlay.get_attribute("src") or "", timeout=TIMEOUT)
    assert np.ptp(opaque, axis=2).max() > 50  # yellow
    page.get_by_role("tab", name="As the network sees it").click()
    expect(page.get_by_alt_text(re.compile("as the network sees it"))).to_be_visible()


def _pixels(page: Page, address: str | None) -> np.ndarray:
    data = page.request.get(address or "").body()
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).astype(int)


@pytest.mark.parametrize(("name", "size", "scheme"), [("phone", PHONE, "light"), ("dark", WIDE, "dark")])
def test_an_example_on_a_phone_and_in_the_dark(
    site: Site,
    browser: BrowserContext,
    screenshots: Path,
    name: str,
    size: tuple[int, int],
    scheme: Literal["light", "dark"],
) -> None:
    page = open_page(site, browser, size, scheme)
    urls: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.reload()
    for example in ("Healthy chest", "Viral pneumonia"):
        page.get_by_role("button", name=example).click()
    expect(page.get_by_role("button", name="Download as CSV")).to_be_visible()
    expect(page.get_by_role("heading", name="drawn-healthy.jpeg")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    note = page.get_by_role("note")
    expect(note).to_be_in_viewport()
    brightness = page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
    red = int(re.findall(r"\d+", brightness)[0])
    assert (red < 60) == (scheme == "dark")
    take_screenshot(page, screenshots / f"{name}.png")
    foreign_urls = [
        url for url in urls if not url.startswith((site.url, site.url.replace("http", "ws"), "data:", "blob:"))
    ]
    assert foreign_urls == []
    page.close()


def test_two_visitors_at_once_see_only_their_own_images(site: Site, browser: BrowserContext) -> None:
    first, second = open_page(site, browser), open_page(site, browser)
    upload(first, ("first.jpeg", BACTERIAL))
    upload(second, ("second.jpeg", HEALTHY))
    expect(second.get_by_text("● NORMAL")).to_be_visible()
    expect(first.get_by_text("▲ PNEUMONIA", exact=True)).to_be_visible()
    assert first.get_by_text("second.jpeg").count() == second.get_by_text("first.jpeg").count() == 0
    first.close()
    second.close()


def test_the_model_card_opens_in_another_tab(page: Page) -> None:
    upload(page, ("ill.jpeg", BACTERIAL))
    with page.context.expect_page() as new_page:
        page.get_by_role("link", name="model card").click()
    card = new_page.value
    expect(card.get_by_role("heading", name="three_block: pneumonia on chest radiographs")).to_be_visible(
        timeout=TIMEOUT
    )
    expect(page.get_by_role("heading", name="ill.jpeg")).to_be_visible()


def test_a_new_champion_takes_over_while_the_page_is_open(site: Site, page: Page) -> None:
    upload(page, ("viral.jpeg", VIRAL))
    expect(page.get_by_text(format_percent(expected(site, VIRAL))).first).to_be_visible()
    site.versions.set_alias("champion", "2")
    expect(page.get_by_text("version 2 (champion), shallow").first).to_be_visible()
    expect(page.get_by_text(format_percent(expected(site, VIRAL, "shallow"))).first).to_be_visible()
    site.versions.set_alias("champion", "1")
    expect(page.get_by_text("version 1 (champion), three_block").first).to_be_visible()


def test_an_interrupt_ends_the_page(site: Site) -> None:
    os.kill(site.process.pid, signal.SIGINT)
    assert site.process.wait(60) == 0
    assert "Traceback" not in site.log()
