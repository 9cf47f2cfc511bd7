"""What a register run did: in sentences, as decision.json, as a page with plots, and the images that were compared."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cxr.data.split_table import TEST
from cxr.files import write_json
from cxr.promotion.comparison import VersionComparison
from cxr.promotion.facts import CommonFacts
from cxr.promotion.log import CHALLENGER, CHAMPION, AliasVersions
from cxr.promotion.policy import AUROC, CommonPolicy
from cxr.promotion.rules import APPROVAL, PromotionDecision
from cxr.tables import write_table

DECISION_FILE, PAGE_FILE, IMAGES_FILE = "decision.json", "decision.html", "comparison.parquet"


@dataclass(frozen=True)
class Registration:
    """What a register run did.

    Attributes:
        registered_name: name of the registered model.
        tracking_uri: address of the store.
        candidates: facts of this run's models, best on validation first.
        new_versions: versions that this run has added; the others existed already.
        aliases: alias to version after the run; None if no version has it.
        manual_aliases: aliases that a person has set.
        decision: about the champion; None if no model could be a challenger.
        comparison: challenger and champion on the same images; None if the rules need no comparison.
        policy: limits of the rules.
        entry: number of the entry in the promotion log; None if the log said the same already.
        notes: further sentences for the reader.
    """

    registered_name: str
    tracking_uri: str
    candidates: tuple[CommonFacts, ...]
    new_versions: tuple[str, ...]
    aliases: AliasVersions
    manual_aliases: tuple[str, ...]
    decision: PromotionDecision | None
    comparison: VersionComparison | None
    policy: CommonPolicy
    entry: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def on_phantoms(self) -> bool:
        """Whether a model of this run was trained on phantoms."""
        return any(facts.dataset_kind == "phantom" for facts in self.candidates)

    @property
    def headings(self) -> dict[str, str]:
        """Figures of this run's models that are reported: attribute of the facts to heading."""
        kind = self.policy.FACTS
        return {
            name: heading
            for name, heading in kind.HEADINGS.items()
            if name not in kind.OPTIONAL or any(not math.isnan(facts.figure(name)) for facts in self.candidates)
        }

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain values for ``decision.json``; limits that are not set are left out."""
        return {
            "registered_name": self.registered_name,
            "tracking_uri": self.tracking_uri,
            "candidates": [facts.to_dict() for facts in self.candidates],
            "new": self.new_versions,
            "aliases": dict(self.aliases),
            "held": self.manual_aliases,
            "decision": asdict(self.decision) if self.decision else None,
            "match": self.comparison.to_dict() if self.comparison else None,
            "policy": self.policy.to_dict(),
            "entry": self.entry,
            "notes": self.notes,
        }

    def headline(self) -> str:
        """Say in one sentence, without full stop, who is challenger and champion."""
        sentence = f"{self.registered_name}: {self._alias_sentence()}"
        decision = self.decision
        if decision is None:
            return sentence
        if decision.promote:
            return f"{sentence} (promoted by this run)"
        if not decision.rules:
            return f"{sentence} (as before)"
        if decision.waits:
            return f"{sentence}; version {decision.candidate} waits for approval"
        return f"{sentence}; version {decision.candidate} was not promoted: {'; '.join(decision.reasons)}"

    def outcome(self) -> str:
        """Say the same for the top of a page that lists the reasons itself."""
        sentence = self._alias_sentence()
        outcome = ""
        if self.decision and self.decision.promote:
            is_approved = any(rule.name == APPROVAL for rule in self.decision.rules)
            outcome = " Promoted with an approval." if is_approved else " Promoted by this run."
        elif self.decision and self.decision.waits:
            outcome = f" Version {self.decision.candidate} waits for approval."
        return f"{sentence[0].upper()}{sentence[1:]}.{outcome}"

    def _alias_sentence(self) -> str:
        return f"challenger is {self._holder(CHALLENGER)}, champion is {self._holder(CHAMPION)}"

    def _holder(self, alias: str) -> str:
        version = self.aliases.get(alias)
        if version is None:
            return "nobody"
        return f"version {version}{' (chosen by a person)' if alias in self.manual_aliases else ''}"


def write_decision(folder: Path, registration: Registration) -> None:
    """Write the comparison, each rule with its figure, and the outcome.

    Args:
        folder: where to write; must exist.
        registration: what the run did.
    """
    from jinja2 import Environment, PackageLoader, select_autoescape

    write_json(folder / DECISION_FILE, registration.to_dict())
    comparison, decision = registration.comparison, registration.decision
    if comparison is not None and comparison.rows is not None:
        images = comparison.rows.rename(columns={"ours": "challenger", "theirs": "champion"})
        write_table(folder / IMAGES_FILE, images)
    environment = Environment(
        loader=PackageLoader("cxr.promotion"),
        autoescape=select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    candidates = {facts.version: facts for facts in registration.candidates}
    page = environment.get_template(PAGE_FILE).render(
        registration=registration,
        candidate=candidates.get(decision.candidate) if decision else None,
        comparison=comparison,
        result=comparison.result if comparison else None,
        plots=_plots(registration),
    )
    (folder / PAGE_FILE).write_text(page, encoding="utf-8")


def _plots(registration: Registration) -> list[tuple[str, str]]:
    """Pairs of alternative text and plot as a data URL."""
    from cxr.plots.comparison import plot_differences, plot_disagreements, plot_roc_pair
    from cxr.plots.style import Caption, png_data_uri

    comparison, policy = registration.comparison, registration.policy
    if comparison is None or comparison.rows is None or comparison.result is None:
        return []
    result, first = comparison.result, registration.candidates[0]
    caption = Caption(
        registration.registered_name, first.dataset, f"{first.split_protocol} split", registration.on_phantoms
    )
    margins = {name: compared.margin for name, compared in policy.compared.items()}
    figures = {"Differences on test with their intervals and margins": plot_differences(result, margins, caption)}
    if AUROC in margins:
        test = comparison.rows[comparison.rows["split"] == TEST]
        figures |= {
            "ROC curves of challenger and champion": plot_roc_pair(test, result, caption),
            "Probabilities of challenger and champion for each test image": plot_disagreements(test, result, caption),
        }
    return [(text, png_data_uri(figure)) for text, figure in figures.items()]
