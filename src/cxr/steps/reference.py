"""Step: what training films look like, so that what is no such film gets no answer."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeVar

from pydantic import Field

from cxr.files import SPLITS_FILE
from cxr.steps.base import Reads, Step, Writes

if TYPE_CHECKING:
    import pandas as pd

    from cxr.images.decoding import Picture

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class DescribeReference(Step):
    """Describe the training films; the limits come from them alone, validation and test tell how often they err."""

    name: ClassVar[str] = "reference"
    sections: ClassVar[tuple[str, ...]] = ("reference",)

    data: Annotated[Path, Reads("Dataset"), Field(description="Folder of the raw images.")] = Path("data")
    splits: Annotated[Path, Reads("Splits"), Field(description="Folder of the split.")] = Path("artifacts/splits")
    reference: Annotated[
        Path, Writes("Reference"), Field(description="reference.npz, report.json and distances.png.")
    ] = Path("artifacts/reference")

    films: Annotated[int, Field(ge=20, le=20_000, description="Most films of each part that are looked at.")] = 3000
    components: Annotated[int, Field(ge=2, le=512, description="Most main directions of the training films.")] = 64
    false_alarms: Annotated[
        float, Field(gt=0, le=0.02, description="Share of films of the same kind that may be refused.")
    ] = 0.003
    max_coloured: Annotated[float, Field(ge=0, le=1, description="Largest share of coloured pixels of a film.")] = 0.02
    seed: Annotated[int, Field(ge=0, description="Draws the films, where there are more.")] = 0

    def run(self) -> None:
        """Read films, fit on train, judge on validation and test, write."""
        from dataclasses import replace
        from functools import partial

        import pandas as pd

        from cxr.data.dataset import DatasetCard
        from cxr.inference.reference.fitting import described, error_rates, fit, judged
        from cxr.plots.reference_distances import distances
        from cxr.plots.style import save

        splits = pd.read_parquet(self.splits / SPLITS_FILE)
        card = DatasetCard.read(self.data)
        train = self._drawn(splits, "train")
        fitted = fit(
            list(self._each(train, described, "describe training films")),
            train["group"].tolist(),
            dataset_kind=card.kind,
            components=self.components,
            false_alarms=self.false_alarms,
            max_coloured=self.max_coloured,
        )
        found = {
            part: list(self._each(self._drawn(splits, part), partial(judged, fitted), f"judge {part} films"))
            for part in ("validation", "test")
        }
        facts = {
            "dataset": card.name,
            "split_digest": json.loads((self.splits / "achieved.json").read_text(encoding="utf-8"))["digest"],
            "training_films": len(train),
            "wanted_false_alarms": self.false_alarms,
            **{part: error_rates(films) for part, films in found.items() if films},
        }
        replace(fitted, facts=facts).save(self.reference)
        (self.reference / "report.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        save(distances(found, card), self.reference / "distances.png")
        for part, rates in facts.items():
            if isinstance(rates, dict):
                log.info(
                    "%s: %d of %d films would get no answer (%.1f %%, 95 %% interval %.1f to %.1f)",
                    part, rates["refused"], rates["films"], *(100 * rates[end] for end in ("share", "low", "high")),
                )  # fmt: skip

    def _drawn(self, splits: pd.DataFrame, part: str) -> pd.DataFrame:
        """Rows of a part of the split; a sample where there are more than wanted."""
        rows = splits[splits["split"] == part].sort_values("path")
        return rows.sample(self.films, random_state=self.seed).sort_values("path") if len(rows) > self.films else rows

    def _each(self, rows: pd.DataFrame, work: Callable[[Picture], Result], doing: str) -> Iterator[Result]:
        """Work on the pictures of rows in threads, in order, with a progress bar."""
        from tqdm import tqdm

        from cxr.images.decoding import MAX_PIXELS, decode_picture, read_bytes
        from cxr.images.prepared import in_order

        def one(path: str) -> Result:
            return work(decode_picture(read_bytes(self.data / path), max_pixels=MAX_PIXELS))

        results = in_order(one, ((path,) for path in rows["path"]), os.cpu_count() or 1)
        return iter(tqdm(results, desc=doing, total=len(rows), unit="film", disable=None))
