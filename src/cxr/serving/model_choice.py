"""Which classifier answers, and which detector draws boxes: versions that have an alias, or models of folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ModelChoice:
    """The classifier and the detector that a person has chosen.

    Attributes:
        registered_name: name of the registered classifier.
        alias: the preferred alias of both.
        fallback: the alias to use, with a notice, until a version has ``alias``; None for none.
        model: folder of a classifier, instead of a registered version; None for none.
        evaluation: folder of its evaluation; None to find it.
        reference: folder of its refusal reference; None to find it.
        regions_name: name of the registered detector; None for no boxes.
        regions_model: folder of a detector, instead of a registered version; None for none.
        regions_evaluation: folder of its evaluation; None to find it.
    """

    registered_name: str
    alias: str
    fallback: str | None
    model: Path | None
    evaluation: Path | None
    reference: Path | None
    regions_name: str | None
    regions_model: Path | None
    regions_evaluation: Path | None

    @property
    def registered_detector(self) -> str | None:
        """Name of the registered detector that draws boxes; None for one of a folder, and for none.

        Only a registered classifier has a registered detector beside it.
        """
        return self.regions_name if self.model is None and self.regions_model is None else None
