"""What a register run did, in words, as JSON and as a page."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from cxr.promotion.log import CHALLENGER, CHAMPION, Places
from cxr.promotion.rules import Decision, Facts, Match, Policy


@dataclass(frozen=True)
class Registration:
    """What a register run did.

    Attributes:
        registered_name: name of the registered model.
        tracking_uri: address of the store.
        candidates: facts of this run's models, best on validation first.
        new: versions that this run has added; the others were there.
        aliases: alias to version after the run, None where nobody has it.
        held: aliases that stand as a person has set them.
        decision: about the champion; None if no model could be a challenger.
        match: challenger and champion on the same images; None where the rules need no comparison.
        policy: limits of the rules.
        entry: number of the entry in the promotion log.
        notes: what else a reader should know.
    """

    registered_name: str
    tracking_uri: str
    candidates: tuple[Facts, ...]
    new: tuple[str, ...]
    aliases: Places
    held: tuple[str, ...]
    decision: Decision | None
    match: Match | None
    policy: Policy
    entry: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def on_phantoms(self) -> bool:
        """Whether a model of this run was trained on drawn images."""
        return any(one.dataset_kind == "phantom" for one in self.candidates)

    def to_dict(self) -> dict[str, Any]:
        """Make it storable.

        Returns:
            Field name to plain values, for JSON.
        """
        values = asdict(self)
        if self.match is not None and self.match.comparison is not None:
            values["match"]["comparison"] = self.match.comparison.to_dict()
        return values

    def headline(self) -> str:
        """Say in one sentence who is challenger and champion.

        Returns:
            The sentence, without full stop.
        """
        sentence = f"{self.registered_name}: {self._places()}"
        decision = self.decision
        if decision is None:
            return sentence
        if decision.promote:
            return f"{sentence} (promoted by this run)"
        if not decision.rules:
            return f"{sentence} (as before)"
        return f"{sentence}; version {decision.candidate} was not promoted: {'; '.join(decision.reasons)}"

    def outcome(self) -> str:
        """Say it for the head of a page that lists the reasons itself.

        Returns:
            Sentences.
        """
        places = self._places()
        promoted = " Promoted by this run." if self.decision and self.decision.promote else ""
        return f"{places[0].upper()}{places[1:]}.{promoted}"

    def _places(self) -> str:
        return f"challenger is {self._holder(CHALLENGER)}, champion is {self._holder(CHAMPION)}"

    def _holder(self, alias: str) -> str:
        version = self.aliases.get(alias)
        if version is None:
            return "nobody"
        return f"version {version}{' (chosen by a person)' if alias in self.held else ''}"


def comparison_figures(match: Match | None) -> dict[str, float]:
    """Figures of a comparison for the promotion log.

    Args:
        match: challenger and champion on the same images.

    Returns:
        Name to value, empty without a comparison.
    """
    if match is None or match.comparison is None:
        return {}
    found: dict[str, float] = {"test_images": match.images}
    for name, (ours, theirs) in match.comparison.validation.items():
        found |= {f"validation_{name}": ours, f"validation_{name}_champion": theirs}
    for name, one in match.comparison.test.items():
        found |= {f"test_{name}_difference": one.difference, f"test_{name}_low": one.low, f"test_{name}_high": one.high}
    return {name: round(float(value), 6) for name, value in found.items()}
