"""Evaluate: calibrate a trained network and choose its threshold on validation, then measure it on test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.files import SPLITS_FILE
from cxr.steps.base import Reads, Writes
from cxr.steps.evaluation_fields import Judged


class Evaluate(Judged):
    """Judge one model: temperature and threshold from validation, figures with intervals from test."""

    name: ClassVar[str] = "evaluate"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "evaluate")

    trained: Annotated[Path, Reads("Model"), Field(description="Folder of the trained model.")]
    prepared: Annotated[Path, Reads("Prepared"), Field(description="Folder of the prepared images.")]
    splits: Annotated[Path, Reads("Splits"), Field(description="Folder of the split.")] = Path("artifacts/splits")
    evaluation: Annotated[Path, Writes("Evaluation"), Field(description="Folder of the evaluation.")]

    model: Annotated[
        str,
        Field(pattern=r"^[a-z][a-z0-9_]*$", description="Name of the model: its entry in the section models."),
    ]
    batch_size: Annotated[int, Field(ge=1, le=4096, description="Images a network call.")] = 64
    manifest: Annotated[
        Path, Reads("Manifest"), Field(description="Folder of the manifest, for what the files alone give away.")
    ] = Path("artifacts/manifest")

    def run(self) -> None:
        """Read model, split and images, judge, write figures, tables, plots and the completed card."""
        from cxr import tracking

        tracking.ensure_reachable(self.store)
        from cxr.models.backend import load_keras

        load_keras()
        import pandas as pd

        from cxr.data.split_table import ratios_of
        from cxr.evaluation.evaluate import evaluate, rows_to_judge
        from cxr.evaluation.files import read_history, write_evaluation
        from cxr.evaluation.mistakes import pictures, worst_mistakes
        from cxr.evaluation.shortcut_checks import (
            HIDDEN_COLUMN,
            METADATA_COLUMN,
            honesty,
            metadata_scores,
            predict_hidden,
        )
        from cxr.evaluation.speed import timed_predict
        from cxr.files import MANIFEST_FILE
        from cxr.images.prepared import Prepared
        from cxr.inference.predictor import Predictor
        from cxr.models.metadata import ModelCard
        from cxr.plots.evaluation import write_plots
        from cxr.plots.style import Caption
        from cxr.training.device import evidence

        card = ModelCard.read(self.trained)
        prepared = Prepared.open(self.prepared)
        splits = pd.read_parquet(self.splits / SPLITS_FILE)
        rows = rows_to_judge(splits, self.splits, self.model, card, prepared)
        manifest = pd.read_parquet(self.manifest / MANIFEST_FILE)
        rows[METADATA_COLUMN] = metadata_scores(splits, manifest, rows, seed=self.seed)
        predictor = Predictor.load(self.trained)
        raw, speed = timed_predict(
            predictor, prepared.images, prepared.rows(rows["path"]), evidence(), batch_size=self.batch_size
        )
        rows["probability_raw"] = raw
        rows[HIDDEN_COLUMN] = predict_hidden(predictor, prepared, rows, batch_size=self.batch_size)
        found = evaluate(
            rows, rule=self.rule, target=self.target, resamples=self.resamples,
            seed=self.seed, bins=self.bins, sensitivities=self.sensitivities,
        )  # fmt: skip
        found = found.with_entries(
            honesty=honesty(rows, resamples=self.resamples, seed=self.seed),
            speed=speed,
            split_ratios=ratios_of(self.splits),
        )
        history = read_history(self.trained)
        write_evaluation(self.evaluation, found, history)
        card.completed(found.temperature, found.point.threshold, found.point.sentence()).write(self.evaluation)
        sheet = worst_mistakes(found.predictions, found.point.threshold, self.mistakes)
        write_plots(
            self.evaluation / "plots", found, sheet, pictures(sheet["path"].tolist(), prepared, self.data),
            Caption.of(card), history, card.training.get("best_epoch"),
        )  # fmt: skip
        tracking.send_evaluation(self.trained, self.evaluation, uri=self.store, experiment=self.experiment)
