"""Evaluate regions: choose a detector's threshold and box scale on validation, then measure it on test."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import Field, field_validator, model_validator

from cxr.freed_memory import keep_freed_memory
from cxr.steps.base import TRAIN_IMAGE, Input, Output
from cxr.steps.folder_fields import ManifestFolder, PreparedFolder, SplitFolder
from cxr.steps.tracking_fields import TrackingStep
from cxr.tables import read_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class EvaluateRegions(TrackingStep):
    """Evaluate one detector beside boxes of a classifier and fixed boxes, with intervals from test."""

    name: ClassVar[str] = "evaluate_regions"
    follows: ClassVar[str] = "train_regions"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "evaluate_regions")
    ignored_keys: ClassVar[frozenset[str]] = frozenset({"compare_with"})  # graphs make classifier's folders of it
    container_image: ClassVar[str | None] = TRAIN_IMAGE
    reads_images: ClassVar[bool] = True

    trained: Annotated[Path, Input("Model"), Field(description="Folder of the trained detector.")]
    prepared: PreparedFolder
    manifest: ManifestFolder = Path("artifacts/manifest")
    splits: SplitFolder = Path("artifacts/splits")
    data: Annotated[
        Path, Input("Dataset"), Field(description="Folder of the raw images, with the boxes of their opacities.")
    ] = Path("data")
    classifier: Annotated[
        Path | None,
        Input("Model", optional=True),
        Field(description="Folder of a trained classifier to compare with; null: only fixed boxes are compared."),
    ] = None
    classifier_evaluation: Annotated[
        Path | None,
        Input("Evaluation", optional=True),
        Field(description="Folder of its evaluation, for its probabilities; needed with classifier."),
    ] = None
    unmarked_manifest: Annotated[
        Path | None,
        Input("Manifest", optional=True),
        Field(
            description="Folder of the manifest of another data set, without boxes, on whose test images the detector "
            "is also measured, as far as possible; null: none."
        ),
    ] = None
    unmarked_splits: Annotated[
        Path | None,
        Input("Splits", optional=True),
        Field(description="Folder of its split; needed with unmarked_manifest."),
    ] = None
    unmarked_prepared: Annotated[
        Path | None,
        Input("Prepared", optional=True),
        Field(description="Folder of its images, prepared as the detector's; needed with unmarked_manifest."),
    ] = None
    evaluation: Annotated[Path, Output("Evaluation"), Field(description="Folder of the evaluation.")]

    model: Annotated[
        str, Field(pattern=r"^[a-z][a-z0-9_]*$", description="Name of the detector: its entry in regions.")
    ]
    batch_size: Annotated[int, Field(ge=1, le=4096, description="Images per network call.")] = 32
    box_scales: Annotated[
        list[float],
        Field(min_length=1, description="Factors of width and height of predicted boxes that validation chooses from."),
    ] = Field(default=[0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2])
    iou_threshold: Annotated[
        float,
        Field(gt=0, lt=1, description="A box hits an opacity above this intersection over union, for sensitivities."),
    ] = 0.4
    false_positives: Annotated[
        float, Field(gt=0, le=4, description="False positives per image at which the sensitivity is reported.")
    ] = 0.5
    heat_levels: Annotated[
        list[float],
        Field(min_length=1, description="Levels of the classifier's heat to cut at that validation chooses from."),
    ] = Field(default=[0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8])
    resamples: Annotated[
        int, Field(ge=100, le=100_000, description="Bootstrap replicates over patients for each interval.")
    ] = 2000
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Seed of the bootstrap.")] = 0
    examples: Annotated[int, Field(ge=1, le=24, description="Most images on the sheet of examples.")] = 8

    @field_validator("box_scales")
    @classmethod
    def _positive(cls, scales: list[float]) -> list[float]:
        if not all(0 < scale <= 3 for scale in scales):
            raise ValueError("a list of factors above 0 and at most 3")
        return scales

    @field_validator("heat_levels")
    @classmethod
    def _shares(cls, levels: list[float]) -> list[float]:
        if not all(0 < level <= 1 for level in levels):
            raise ValueError("a list of shares above 0 and at most 1")
        return levels

    @model_validator(mode="after")
    def _classifier_is_whole(self) -> Self:
        if (self.classifier is None) != (self.classifier_evaluation is None):
            raise ValueError(
                f"expected classifier and classifier_evaluation, or neither, received classifier={self.classifier}, "
                f"classifier_evaluation={self.classifier_evaluation}; give the folder of the classifier's training and "
                "that of its evaluation"
            )
        return self

    @model_validator(mode="after")
    def _unmarked_images_are_whole(self) -> Self:
        folders = {name: getattr(self, name) for name in ("unmarked_manifest", "unmarked_splits", "unmarked_prepared")}
        if len({folder is None for folder in folders.values()}) > 1:
            received = ", ".join(f"{name}={folder}" for name, folder in folders.items())
            raise ValueError(
                f"expected {', '.join(folders)}, or none of them, received {received}; give the folders that validate, "
                "resplit and preprocess wrote for these images"
            )
        return self

    def run(self) -> None:
        """Read detector, split, images and boxes, evaluate, write metrics, tables, plots and the metadata."""
        from cxr.tracking.finished_run import try_to_log_evaluation

        keep_freed_memory()
        self.check_store()
        from cxr.models.backend import load_keras

        load_keras()

        from cxr.data.boxes import read_boxes
        from cxr.data.image_opening import open_raw_images
        from cxr.data.split_table import TEST, USED_SPLITS, VALIDATION
        from cxr.evaluation.files import read_history, training_curve, write_curves
        from cxr.evaluation.training_data import check_model_fits
        from cxr.files import MANIFEST_FILE
        from cxr.images.decoding import decode_grey
        from cxr.images.prepared import PreparedImages
        from cxr.images.reading_options import VALIDATED
        from cxr.models.stored_files import record_digests
        from cxr.plots.regions import write_region_plots
        from cxr.plots.style import Caption, save_png
        from cxr.plots.training import plot_training
        from cxr.regions.evaluation import RegionSettings, evaluate_regions
        from cxr.regions.examples import choose_examples
        from cxr.regions.files import write_region_evaluation
        from cxr.regions.image_tables import image_tables
        from cxr.regions.methods import ComparedClassifier, add_box_choice, methods_to_compare
        from cxr.regions.predictor import RegionPredictor
        from cxr.regions.unmarked_images import UnmarkedImages
        from cxr.training.split_data import SplitData

        raw = open_raw_images(self.data)

        def read_image(path: str) -> NDArray[np.uint8]:
            return decode_grey(raw.read(path), VALIDATED)

        predictor = RegionPredictor.load(self.trained)
        prepared = PreparedImages.open(self.prepared)
        check_model_fits(self.splits, self.model, predictor.metadata, prepared)
        classifier = None
        if self.classifier is not None and self.classifier_evaluation is not None:
            classifier = ComparedClassifier.read(
                self.classifier, self.classifier_evaluation, predictor.metadata.split_digest
            )
        data = SplitData.read(self.manifest, self.splits)
        splits = data.frame[data.frame["split"].isin(USED_SPLITS)]
        images, boxes = image_tables(splits, read_table(self.manifest / MANIFEST_FILE), read_boxes(self.data))
        judged = images[images["split"].isin((VALIDATION, TEST))]
        detections = predictor.propose_in_originals(prepared, judged, batch_size=self.batch_size)
        methods = methods_to_compare(
            images, boxes, detections, classifier=classifier, read_image=read_image, heat_levels=self.heat_levels
        )
        settings = RegionSettings(**{name: getattr(self, name) for name in RegionSettings.__dataclass_fields__})
        evaluation = evaluate_regions(images, boxes, methods, data.dataset, settings)
        if classifier is not None:
            evaluation = evaluation.with_entries({"classifier": classifier.predictor.metadata.model})
        if self.unmarked_manifest and self.unmarked_splits and self.unmarked_prepared:
            unmarked = UnmarkedImages.read(self.unmarked_manifest, self.unmarked_splits, self.unmarked_prepared)
            figures = unmarked.evaluate(
                predictor, evaluation.operating_point, batch_size=self.batch_size, resamples=self.resamples,
                seed=self.seed,
            )  # fmt: skip
            evaluation = evaluation.with_entries({"unmarked": figures})
        examples, caption = choose_examples(evaluation, self.examples), Caption.of(predictor.metadata)
        write_region_evaluation(self.evaluation, evaluation)
        add_box_choice(predictor.metadata, evaluation).write(self.evaluation)
        write_region_plots(
            self.evaluation / "plots", evaluation, examples, [read_image(path) for path in examples["path"]],
            caption,
        )  # fmt: skip
        history = read_history(self.trained)
        if history is not None:
            write_curves(self.evaluation, {"training": training_curve(history)})
            best_epoch = predictor.metadata.training.get("best_epoch")
            save_png(plot_training(history, best_epoch, caption), self.evaluation / "plots" / "training.png")
        record_digests(self.evaluation)
        try_to_log_evaluation(self.store, self.trained, self.evaluation, experiment=self.experiment)
