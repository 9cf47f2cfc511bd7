"""Every figure of docs/results.md comes from the files under reports/results/."""

from __future__ import annotations

from cxr.results.page import render
from cxr.results.result import read_all, read_notes


def test_the_page_is_what_the_kept_results_give(repository):
    page = (repository / "docs" / "results.md").read_text(encoding="utf-8")
    kept = repository / "reports" / "results"
    assert page == render(read_all(kept), read_notes(kept))


def test_no_kept_result_is_of_phantoms(repository):
    kept = read_all(repository / "reports" / "results")
    assert kept
    assert not [result.model for result in kept if result.phantom]
