"""Train: fit one network on the training images of the split, judged by the validation images."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from cxr.models.networks import check_name, check_options
from cxr.steps.base import Keeps, Reads, Writes
from cxr.steps.tracking_fields import Tracked

if TYPE_CHECKING:
    from cxr.training.session import Settings

WITHOUT_EFFECT = frozenset({"tracking_uri", "experiment", "offline", "resume", "data_pointer", "data_version"})
"""Parameters that a trained network does not depend on."""


class Train(Tracked):
    """Train one network; the best epoch on validation is kept, and a killed run goes on where it was."""

    name: ClassVar[str] = "train"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "train", "models.{model}", "transfer.{model}")

    manifest: Annotated[Path, Reads("Manifest"), Field(description="Folder of the manifest.")] = Path(
        "artifacts/manifest"
    )
    splits: Annotated[Path, Reads("Splits"), Field(description="Folder of the split.")] = Path("artifacts/splits")
    prepared: Annotated[Path, Reads("Prepared"), Field(description="Folder of the prepared images.")]
    trained: Annotated[Path, Writes("Model"), Field(description="Folder of the trained model.")]
    checkpoints: Annotated[
        Path,
        Keeps("Checkpoints"),
        Field(description="Folder of the last epoch, removed when training is done."),
    ] = Path("artifacts/checkpoints")

    model: Annotated[
        str,
        Field(pattern=r"^[a-z][a-z0-9_]*$", description="Name of the model: its entry in models or transfer."),
    ]
    system: Annotated[str, Field(description="Source system whose network this is, S0 to S4.")] = "own"
    architecture: Annotated[str, AfterValidator(check_name), Field(description="Which network to build.")]
    recipe: Annotated[str | None, Field(description="Recipe that the images must have; null takes any.")] = None
    optimizer: Annotated[Literal["adam", "nadam", "rmsprop", "sgd"], Field(description="Keras optimizer.")] = "adam"
    learning_rate: Annotated[float, Field(gt=0, le=1, description="Learning rate of the first epoch.")] = 1e-3
    batch_size: Annotated[int, Field(ge=1, le=4096, description="Images a batch.")] = 32
    epochs: Annotated[int, Field(ge=1, le=10_000, description="Most epochs on radiographs of patients.")] = 30
    phantom_epochs: Annotated[
        int,
        Field(ge=1, le=10_000, description="Most epochs on drawn phantoms, which only show that all works."),
    ] = 3
    monitor: Annotated[
        Literal["loss", "auroc"],
        Field(description="Validation figure that decides on best epoch, early stop and learning rate."),
    ] = "loss"
    early_stop_patience: Annotated[
        int, Field(ge=0, description="Epochs without a better figure before training stops; 0 never stops.")
    ] = 0
    reduce_lr_patience: Annotated[
        int, Field(ge=0, description="Epochs without a better figure before the rate is lowered; 0 never.")
    ] = 0
    reduce_lr_factor: Annotated[float, Field(gt=0, lt=1, description="What the rate is multiplied by.")] = 0.1
    min_learning_rate: Annotated[float, Field(ge=0, description="The rate is never lowered below this.")] = 0.0
    stop_at_accuracy: Annotated[
        float | None,
        Field(gt=0, le=1, description="Accuracy on train at which training stops (S3: 0.975); null never stops it."),
    ] = None
    dropout: Annotated[
        float | None, Field(ge=0, lt=1, description="Share of units dropped; null takes the source's own.")
    ] = None
    batch_normalisation: Annotated[
        bool | None,
        Field(description="Whether the network's own layers are normalised; null takes it as the source has it."),
    ] = None
    weights: Annotated[
        str,
        Field(
            min_length=1,
            description="Weights of the backbone: imagenet (fetched by Keras, kept in its cache), a file, or none "
            "(the whole network is trained from its seed).",
        ),
    ] = "none"
    unfrozen_layers: Annotated[
        int, Field(ge=0, description="Last layers of the backbone that are trained in the second phase.")
    ] = 0
    fine_tune_epochs: Annotated[
        int, Field(ge=0, le=10_000, description="Most epochs of the second phase; 0 leaves it out.")
    ] = 0
    fine_tune_optimizer: Annotated[
        Literal["adam", "nadam", "rmsprop", "sgd"], Field(description="Keras optimizer of the second phase.")
    ] = "adam"
    fine_tune_learning_rate: Annotated[
        float, Field(gt=0, le=1, description="Learning rate of the second phase's first epoch.")
    ] = 1e-5
    cut: Annotated[
        Literal["auto", "always", "never"],
        Field(description="Whether frozen layers are computed once and kept on disk; auto: on a CPU."),
    ] = "auto"
    augmented_views: Annotated[
        int,
        Field(ge=0, le=100, description="Augmented views per image, beside the plain one, that a cut network sees."),
    ] = 2
    gpu_batch_size: Annotated[
        int | None, Field(ge=1, le=4096, description="Images a batch on a GPU; null takes batch_size.")
    ] = None
    gpu_precision: Annotated[
        Literal["float32", "mixed_float16", "mixed_bfloat16"],
        Field(description="Precision of the computation on a GPU; weights are always kept in float32."),
    ] = "float32"
    balance: Annotated[
        Literal["none", "class_weights", "oversample"],
        Field(description="How the rarer class is made up for: weights, repeated images, or not at all."),
    ] = "none"
    augmentation: Annotated[
        dict[str, float | bool],
        Field(description="Random changes: horizontal_flip, rotation and shear in degrees, zoom, shift."),
    ] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Seed of weights, order, augmentation and dropout.")] = 0
    resume: Annotated[bool, Field(description="Go on from the checkpoint of a killed run, if it fits.")] = True
    data_pointer: Annotated[
        Path, Field(description="DVC's pointer to the raw images, read for their md5; may be missing.")
    ] = Path("data.dvc")
    data_version: Annotated[
        str | None,
        Field(description="md5 of the raw images where there is no pointer, as in a container; null: the pointer's."),
    ] = None

    @field_validator("augmentation")
    @classmethod
    def _known_changes(cls, value: dict[str, Any]) -> dict[str, Any]:
        known = {"horizontal_flip", "rotation", "zoom", "shear", "shift"}
        unknown = sorted(set(value) - known)
        if unknown:
            raise ValueError(f"a mapping with the keys {', '.join(sorted(known))}; unknown: {', '.join(unknown)}")
        return value

    @model_validator(mode="after")
    def _options_of_the_network(self) -> Self:
        problems = check_options(self.architecture, self.batch_normalisation, self.weights)
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def settings(self) -> Settings:
        """What the trained network depends on beside its images.

        Returns:
            The settings of one training.
        """
        from cxr.training.session import Settings

        return Settings(**{name: getattr(self, name) for name in Settings.__dataclass_fields__})

    def run(self) -> None:
        """Read split and images, train, write network, card, history and evidence."""
        from cxr import tracking
        from cxr.lineage import provenance

        tracking.ensure_reachable(self.store)
        from cxr.models.backend import load_keras

        load_keras()
        from cxr.images.prepared import Prepared
        from cxr.training.session import Session
        from cxr.training.trained_model import TrainedModel
        from cxr.training.training_set import SplitData

        values = self.model_dump(include=set(self.parameters()) - WITHOUT_EFFECT, mode="json")
        data = SplitData.read(self.manifest, self.splits)
        prepared = Prepared.open(self.prepared, self.recipe)
        session = Session(self.settings(), prepared, data, self.checkpoints, resume=self.resume)
        origin = {"data_md5": provenance.data_md5(self.data_pointer, self.data_version), **provenance.origin(Path())}
        with tracking.open_run(
            self.store, self.experiment, self.model,
            tags={"model": self.model, "system": self.system, "data_digest": data.data_digest,
                  "split_protocol": data.protocol, "split_digest": data.digest, **origin},
            params=values, dataset_kind=data.dataset.kind, run_id=session.run_id,
        ) as run:  # fmt: skip
            result = session.learn(run_id=run.run_id, on_epoch=lambda row: run.log_epoch(int(row["epoch"]), row))
            model = TrainedModel(
                session.network, result, values, prepared.recipe, data, session.device, origin, run.run_id
            )
            model.write(self.trained, self.model, self.system, self.seed)
            run.log_model(self.trained)

    def tidy(self) -> None:
        """Remove the checkpoint: the trained model is in place."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)
