"""Section of a model card about its judgements on other data, written by `cxr judge`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cxr.results.judgements import describe_source, judgements_table


def outside_section(judgements: Sequence[Mapping[str, Any]]) -> str:
    """Write the figures on each data set.

    Args:
        judgements: content of the ``summary.json`` of each judgement.

    Returns:
        Markdown.
    """
    explanation = (
        "Threshold and calibration are those of this card; nothing was fitted on these images. Unless the column says "
        "so, refused images are not among the figures. The distance is measured as `cxr drift` does."
    )
    table = judgements_table([(summary, ()) for summary in judgements])
    sources = "; ".join(f"{summary['data']} from {describe_source(summary)}" for summary in judgements)
    return f"{explanation}\n\n{table}\nImages: {sources}."
