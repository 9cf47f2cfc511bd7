"""The sentence of the README with the figures that one can trust, written between two marks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cxr.errors import DataError
from cxr.files import write_text
from cxr.results.formatting import format_measure
from cxr.results.model_result import ModelResult

BEGIN, END = "<!-- begin: written by cxr results -->", "<!-- end -->"


def official_test_sentence(results: Iterable[ModelResult]) -> str:
    """Write the test figures of the model with the highest validation AUROC on the official split.

    Args:
        results: stored results, in any order; those on drawn phantoms and on re-splits are left out.

    Returns:
        One Markdown sentence; that nothing has been measured if there is no such result.
    """
    official = [result for result in results if result.section[2] == "official" and not result.phantom]
    if not official:
        return "No result on the official test of the public set has been recorded yet."
    best = min(official, key=lambda result: result.validation_rank)
    auroc, sensitivity, specificity = (
        format_measure(measure, best.test["at_threshold"]).replace("<br>", " ")
        for measure in ("auroc", "sensitivity", "specificity")
    )
    return (
        f"**On the official test of the public set** ({best.test['images']:,} radiographs of "
        f"{best.test['patients']:,} patients): AUROC {auroc},\n"
        f"sensitivity {sensitivity} and specificity {specificity}. These are the figures of `{best.model}`.\n"
        "Validation chose this model and its threshold; brackets hold 95 % intervals over patients "
        "([all results](docs/results.md))."
    )


def update_readme(path: Path, results: Iterable[ModelResult]) -> None:
    """Write the sentence between the two marks of a README; everything outside of them stays as it is.

    Args:
        path: the README.
        results: stored results, in any order.

    Raises:
        DataError: if the file cannot be read, or does not hold each mark once, in this order.
    """
    remedy = f"write the lines {BEGIN} and {END} where the figures are to stand, or give --readme null"
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"expected a README with two marks, received readme={path} ({error}); {remedy}") from error
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in head + tail:
        raise DataError(f"expected each of two marks once, received readme={path} without them; {remedy}")
    write_text(path, f"{head}{BEGIN}\n{official_test_sentence(results)}\n{END}{tail}")
