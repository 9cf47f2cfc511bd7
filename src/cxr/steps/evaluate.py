"""Evaluate: calibrate a trained network and choose its threshold on validation, then measure it on test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from cxr.steps.base import Reads, Writes
from cxr.steps.tracked import Tracked


class Evaluate(Tracked):
    """Judge one model: temperature and threshold from validation, figures with intervals from test."""

    name: ClassVar[str] = "evaluate"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "evaluate")

    trained: Annotated[Path, Reads("Model"), Field(description="Folder of the trained model.")]
    prepared: Annotated[Path, Reads("Prepared"), Field(description="Folder of the prepared images.")]
    splits: Annotated[Path, Reads("Splits"), Field(description="Folder of the split.")] = Path("artifacts/splits")
    data: Annotated[
        Path,
        Reads("Dataset", optional=True),
        Field(description="Folder of the raw images, for the sheet of mistakes; prepared ones if missing."),
    ] = Path("data")
    evaluation: Annotated[Path, Writes("Evaluation"), Field(description="Folder of the evaluation.")]

    model: Annotated[
        str,
        Field(pattern=r"^[a-z][a-z0-9_]*$", description="Name of the model: its entry in the section models."),
    ]
    rule: Annotated[
        Literal["sensitivity", "specificity", "youden", "f1", "accuracy", "fixed"],
        Field(
            description="What the threshold is chosen for on validation. sensitivity: the highest "
            "specificity at a sensitivity of at least target; specificity: the reverse; fixed: target is the "
            "threshold."
        ),
    ] = "sensitivity"
    target: Annotated[
        float, Field(ge=0, le=1, description="Wanted sensitivity or specificity, or the fixed threshold.")
    ] = 0.95
    sensitivities: Annotated[
        list[float],
        Field(description="Further sensitivities at which the specificity is reported; 0.9703 is S2's own."),
    ] = Field(default=[0.9703])
    resamples: Annotated[
        int, Field(ge=100, le=100_000, description="Bootstrap replicates over patients behind each interval.")
    ] = 2000
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Seed of the bootstrap.")] = 0
    bins: Annotated[int, Field(ge=2, le=100, description="Bins of the calibration error.")] = 15
    mistakes: Annotated[
        int, Field(ge=1, le=12, description="Images of each kind of error on the sheet of mistakes.")
    ] = 6
    batch_size: Annotated[int, Field(ge=1, le=4096, description="Images a network call.")] = 64
    manifest: Annotated[
        Path, Reads("Manifest"), Field(description="Folder of the manifest, for what the files alone give away.")
    ] = Path("artifacts/manifest")

    @field_validator("sensitivities")
    @classmethod
    def _shares(cls, sensitivities: list[float]) -> list[float]:
        if not all(0 < value <= 1 for value in sensitivities):
            raise ValueError("a list of shares above 0 and at most 1")
        return sensitivities

    def run(self) -> None:
        """Read model, split and images, judge, write figures, tables, plots and the completed card."""
        from cxr.backend import load_keras

        load_keras()
        import pandas as pd

        from cxr import tracking
        from cxr.assignment import ratios_of
        from cxr.card import ModelCard
        from cxr.evaluation import evaluate, rows_to_judge
        from cxr.evaluation.files import read_history, write_evaluation
        from cxr.evaluation.honesty import HIDDEN_COLUMN, METADATA_COLUMN, honesty, metadata_scores, predict_hidden
        from cxr.evaluation.mistakes import pictures, worst_mistakes
        from cxr.evaluation.speed import timed_predict
        from cxr.manifest import FILE_NAME
        from cxr.plots import write_plots
        from cxr.plots.style import Caption
        from cxr.prediction import Predictor
        from cxr.prepared import Prepared
        from cxr.training.device import evidence

        card = ModelCard.read(self.trained)
        prepared = Prepared.open(self.prepared)
        splits = pd.read_parquet(self.splits / "splits.parquet")
        rows = rows_to_judge(splits, self.splits, self.model, card, prepared)
        manifest = pd.read_parquet(self.manifest / FILE_NAME)
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
        tracking.log_evaluation(self.trained, self.evaluation, uri=self.tracking_uri, experiment=self.experiment)
