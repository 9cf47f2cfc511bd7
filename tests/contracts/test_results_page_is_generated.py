"""docs/results.md and the README's figures are what `cxr results` writes from the files under reports/results/."""

from __future__ import annotations

import shutil

from cxr.results.model_result import read_notes, read_results
from cxr.results.page import render_page
from cxr.results.readme import update_readme


def test_page_is_generated_from_the_stored_results(repository):
    page = (repository / "docs" / "results.md").read_text(encoding="utf-8")
    folder = repository / "reports" / "results"
    assert page == render_page(read_results(folder), read_notes(folder), phantoms=False)


def test_figures_of_the_readme_are_those_of_the_stored_results(repository, tmp_path):
    committed, written = repository / "README.md", tmp_path / "README.md"
    shutil.copy(committed, written)
    update_readme(written, read_results(repository / "reports" / "results"))
    assert committed.read_text(encoding="utf-8") == written.read_text(encoding="utf-8"), "run `make generate`"


def test_no_stored_result_is_of_phantoms(repository):
    results = read_results(repository / "reports" / "results")
    assert results
    assert not [result.model for result in results if result.phantom]
