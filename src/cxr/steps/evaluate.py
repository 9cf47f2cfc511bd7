"""Evaluate: calibrate a trained network and choose its threshold on validation, then measure it on test."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.files import SPLITS_FILE
from cxr.freed_memory import keep_freed_memory
from cxr.steps.base import TRAIN_IMAGE, Input, Output
from cxr.steps.evaluation_fields import EvaluationStep
from cxr.steps.folder_fields import PreparedFolder, SplitFolder
from cxr.tables import read_table


class Evaluate(EvaluationStep):
    """Evaluate one model: temperature and threshold from validation, metrics with intervals from test."""

    name: ClassVar[str] = "evaluate"
    follows: ClassVar[str] = "train"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "evaluate")
    container_image: ClassVar[str | None] = TRAIN_IMAGE
    reads_images: ClassVar[bool] = True

    trained: Annotated[Path, Input("Model"), Field(description="Folder of the trained model.")]
    prepared: PreparedFolder
    splits: SplitFolder = Path("artifacts/splits")
    evaluation: Annotated[Path, Output("Evaluation"), Field(description="Folder of the evaluation.")]

    model: Annotated[
        str,
        Field(pattern=r"^[a-z][a-z0-9_]*$", description="Name of the model: its entry in the section models."),
    ]
    batch_size: Annotated[int, Field(ge=1, le=4096, description="Images per network call.")] = 64
    stress: Annotated[
        bool,
        Field(description="Whether the model is also measured on images changed as by another device or exposure."),
    ] = True
    stress_images: Annotated[
        int,
        Field(ge=2, le=100_000, description="Most images of validation, and most of test, that are changed."),
    ] = 300
    phantom_stress_images: Annotated[
        int, Field(ge=2, le=100_000, description="The same for drawn phantoms, whose figures say nothing anyway.")
    ] = 8
    manifest: Annotated[
        Path,
        Input("Manifest"),
        Field(description="Folder of the manifest, for slices and the check of shortcuts in file facts."),
    ] = Path("artifacts/manifest")

    def run(self) -> None:
        """Read model, split and images, evaluate, write metrics, tables, plots and the calibrated metadata."""
        from cxr.tracking.finished_run import try_to_log_evaluation

        keep_freed_memory()
        self.check_store()
        from cxr.models.backend import load_keras

        load_keras()

        from cxr.data.image_opening import open_raw_images
        from cxr.data.manifest.patients import read_patient_table
        from cxr.data.split_table import read_ratios
        from cxr.evaluation.evaluate import check_coverage, evaluate, evaluation_rows
        from cxr.evaluation.files import read_history
        from cxr.evaluation.prediction import predict_with_speed
        from cxr.evaluation.shortcut_checks import (
            HIDDEN_COLUMN,
            METADATA_COLUMN,
            metadata_baseline_scores,
            predict_lungs_hidden,
            with_shortcut_checks,
        )
        from cxr.evaluation.slices import assign_slices
        from cxr.evaluation.stress_test import draw_stress_sample, predict_changed_images, with_stress_test
        from cxr.files import MANIFEST_FILE, PATIENTS_FILE
        from cxr.images.prepared import PreparedImages
        from cxr.inference.predictor import Predictor
        from cxr.models.metadata import ModelMetadata
        from cxr.plots.evaluation import write_evaluation_folder
        from cxr.training.device import describe_device

        metadata = ModelMetadata.read(self.trained)
        prepared = PreparedImages.open(self.prepared)
        splits = read_table(self.splits / SPLITS_FILE)
        rows = evaluation_rows(splits, self.splits, self.model, metadata, prepared)
        check_coverage(rows, self.coverage)
        manifest = read_table(self.manifest / MANIFEST_FILE)
        if self.slices:
            table = self.data / PATIENTS_FILE
            patients = read_patient_table(table) if table.is_file() else None
            rows = assign_slices(rows, manifest, patients, self.slices)
        rows[METADATA_COLUMN] = metadata_baseline_scores(splits, manifest, rows, seed=self.seed)
        predictor = Predictor.load(self.trained)
        rows["probability_raw"], speed = predict_with_speed(
            predictor, prepared.images, prepared.rows(rows["path"]), describe_device(), batch_size=self.batch_size
        )
        rows[HIDDEN_COLUMN] = predict_lungs_hidden(predictor, prepared, manifest, rows, batch_size=self.batch_size)
        changed = None
        if self.stress:
            images = self.phantom_stress_images if metadata.dataset_kind == "phantom" else self.stress_images
            sample = draw_stress_sample(rows, images=images, seed=self.seed)
            changed = predict_changed_images(predictor, prepared, sample, batch_size=self.batch_size)
        evaluation = evaluate(rows, self.settings())
        evaluation = with_shortcut_checks(evaluation, resamples=self.resamples, seed=self.seed)
        evaluation = with_stress_test(evaluation, changed, resamples=self.resamples, seed=self.seed)
        evaluation = evaluation.with_entries({"speed": speed, "split_ratios": read_ratios(self.splits)})
        write_evaluation_folder(
            self.evaluation, evaluation, metadata, prepared=prepared, raw=open_raw_images(self.data),
            mistakes=self.mistakes, history=read_history(self.trained),
        )  # fmt: skip
        try_to_log_evaluation(self.store, self.trained, self.evaluation, experiment=self.experiment)
