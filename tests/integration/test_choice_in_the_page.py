"""A person chooses in MLflow's page, in a real browser, and no run overrules it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

from cxr.cli.main import main
from cxr.tracking.aliases import read_promotion_log
from cxr.tracking.store import Store
from support.model_folders import make_metadata, replace_evaluation, write_models
from support.servers import TrackingServer

# They need a browser; in `make test`, tests/tracking/test_aliases.py sets the alias as the page does.
pytestmark = [pytest.mark.integration, pytest.mark.exhaustive]

NAME = "chosen"
FLAGS = {
    "require_gpu": "false",
    "min_auroc": "0",
    "min_sensitivity": "0",
    "max_calibration_error": "1",
    "margin": "1",
    "sensitivity_margin": "1",
}
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]


@pytest.fixture
def page(mlflow_server: TrackingServer) -> Iterator[Page]:
    """MLflow's page in a browser in which a user is logged in."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no browser: apt-get install chromium")
    user, password = mlflow_server.user
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=QUIET)
        context = browser.new_context(http_credentials={"username": user, "password": password})
        page = context.new_page()
        page.set_default_timeout(120_000)
        yield page
        browser.close()


def open_version(page: Page, uri: str, version: str) -> None:
    page.goto(f"{uri}/#/models/{NAME}/versions/{version}")
    page.reload()
    page.get_by_role("heading", name=f"Version {version}").wait_for()


def test_the_alias_that_a_person_sets_in_the_page_stands(
    page: Page,
    server_uri: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    folders = write_models(tmp_path)

    def run_with(skill: float, seed: int) -> dict[str, object]:
        """Train the same network again and register it, as a user does on the command line."""
        make_metadata(seed=seed).write(folders.models / "three_block")
        replace_evaluation(folders, "three_block", skill)
        flags = {
            **FLAGS,
            "models": folders.models,
            "evaluations": folders.evaluations,
            "splits": folders.splits,
            "registration": tmp_path / "registration",
            "tracking_uri": server_uri,
            "registered_name": NAME,
        }
        assert (
            main(["register", *(argument for key, value in flags.items() for argument in (f"--{key}", str(value)))])
            == 0
        )
        return dict(json.loads((tmp_path / "registration" / "decision.json").read_text()))

    run_with(skill=1, seed=1)
    run_with(skill=2, seed=2)
    open_version(page, server_uri, "2")
    page.get_by_text("@ champion").wait_for()

    open_version(page, server_uri, "1")
    page.get_by_role("button", name="Add").first.click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("combobox").click()
    page.keyboard.type("champion")
    page.keyboard.press("Enter")
    dialog.get_by_role("button", name="Save aliases").click()
    page.get_by_text("@ champion").wait_for()

    with caplog.at_level("INFO", logger="cxr"):
        decision = run_with(skill=5, seed=3)
    assert decision["aliases"] == {"champion": "1", "challenger": "3"}
    assert "a person has chosen version 1 as champion; a run never overrules that" in caplog.text
    assert Store(server_uri).client.get_model_version(NAME, "3").tags["recommended"] == "champion"
    assert [entry.kind for entry in read_promotion_log(Store(server_uri), NAME)] == ["run", "run", "person", "run"]

    open_version(page, server_uri, "1")
    page.get_by_text("@ champion").wait_for()
    open_version(page, server_uri, "3")
    page.get_by_text("recommended", exact=True).wait_for()
    page.get_by_text("@ challenger").wait_for()
    assert page.get_by_text("@ champion").count() == 0
