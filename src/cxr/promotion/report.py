"""The files of a registration: decision.json, a page with plots, and the images that were compared."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from jinja2 import Environment, PackageLoader, select_autoescape

from cxr.evaluation.evaluate import TEST
from cxr.files import write_json
from cxr.plots.comparison import differences, disagreements, roc_pair
from cxr.plots.style import Caption, data_address
from cxr.promotion.registration import Registration
from cxr.promotion.rules import AUROC, SENSITIVITY

JSON_NAME, PAGE_NAME, IMAGES_NAME = "decision.json", "decision.html", "comparison.parquet"


def write_decision(folder: Path, registration: Registration, rows: pd.DataFrame | None = None) -> None:
    """Write what was compared, each rule with its figure, and the outcome.

    Args:
        folder: where to write; must exist.
        registration: what the run did.
        rows: images that challenger (``ours``) and champion (``theirs``) were compared on; None without a
            comparison.
    """
    write_json(folder / JSON_NAME, registration.to_dict())
    if rows is not None:
        named = rows.rename(columns={"ours": "challenger", "theirs": "champion"})
        named.to_parquet(folder / IMAGES_NAME, index=False)
    environment = Environment(
        loader=PackageLoader("cxr.promotion"),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    decision = registration.decision
    candidate = next((one for one in registration.candidates if decision and one.version == decision.candidate), None)
    page = environment.get_template(PAGE_NAME).render(
        one=registration,
        candidate=candidate,
        match=registration.match,
        comparison=registration.match.comparison if registration.match else None,
        plots=_plots(registration, rows),
    )
    (folder / PAGE_NAME).write_text(page, encoding="utf-8")


def _plots(registration: Registration, rows: pd.DataFrame | None) -> list[tuple[str, str]]:
    """Words for who cannot see the plot, and the plot as a data address."""
    match, policy = registration.match, registration.policy
    if rows is None or match is None or match.comparison is None:
        return []
    found = match.comparison
    first = registration.candidates[0]
    caption = Caption(
        registration.registered_name, first.dataset, f"{first.split_protocol} split", registration.on_phantoms
    )
    test = rows[rows["split"] == TEST]
    margins = {AUROC: policy.margin, SENSITIVITY: policy.sensitivity_margin}
    return [
        ("Differences on test with their intervals and margins", data_address(differences(found, margins, caption))),
        ("ROC curves of challenger and champion", data_address(roc_pair(test, found, caption))),
        (
            "Probabilities of challenger and champion for each test image",
            data_address(disagreements(test, found, caption)),
        ),
    ]
