"""Train: fit one network on the training images of the split, judged by the validation images."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, field_validator

from cxr.models import check_name
from cxr.steps.base import Keeps, Reads, Writes
from cxr.steps.tracked import Tracked

WITHOUT_EFFECT = frozenset({"tracking_uri", "experiment", "resume", "data_pointer"})
"""Parameters that a trained network does not depend on."""


class Train(Tracked):
    """Train one network; the best epoch on validation is kept, and a killed run goes on where it was."""

    name: ClassVar[str] = "train"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "train", "models.{model}")

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
        Field(pattern=r"^[a-z][a-z0-9_]*$", description="Name of the model: its entry in the section models."),
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
    dropout: Annotated[
        float | None, Field(ge=0, lt=1, description="Share of units dropped; null takes the source's own.")
    ] = None
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

    @field_validator("augmentation")
    @classmethod
    def _known_changes(cls, value: dict[str, Any]) -> dict[str, Any]:
        known = {"horizontal_flip", "rotation", "zoom", "shear", "shift"}
        unknown = sorted(set(value) - known)
        if unknown:
            raise ValueError(f"a mapping with the keys {', '.join(sorted(known))}; unknown: {', '.join(unknown)}")
        return value

    def run(self) -> None:
        """Read split and images, train, write network, card, history and evidence."""
        from cxr.backend import load_keras

        load_keras()
        from cxr import provenance, tracking
        from cxr.augmentation import Augmentation
        from cxr.models import build
        from cxr.prepared import Prepared
        from cxr.training import Plan, fit
        from cxr.training.batches import Batches
        from cxr.training.checkpoint import Checkpoint
        from cxr.training.device import evidence, make_deterministic
        from cxr.training.trained_model import TrainedModel, fingerprint
        from cxr.training.training_set import SplitData

        values = self.model_dump(include=set(self.parameters()) - WITHOUT_EFFECT, mode="json")
        data = SplitData.read(self.manifest, self.splits)
        prepared = Prepared.open(self.prepared, self.recipe)
        make_deterministic(self.seed)
        network = build(self.architecture, prepared.recipe.input_shape, dropout=self.dropout)
        common = {"batch_size": self.batch_size, "outputs": network.output_shape[-1], "seed": self.seed}
        changes = Augmentation(**self.augmentation)  # type: ignore[arg-type]  # bounds are checked there
        paths, labels = data.part("train")
        train = Batches(
            prepared.images, prepared.rows(paths), labels, prepared.recipe,
            shuffle=True, augmentation=changes, balance=self.balance, **common,
        )  # fmt: skip
        paths, labels = data.part("validation")
        validation = Batches(prepared.images, prepared.rows(paths), labels, prepared.recipe, **common)
        epochs = self.phantom_epochs if data.dataset.kind == "phantom" else self.epochs
        plan = Plan(
            self.optimizer, self.learning_rate, min(epochs, self.epochs), self.monitor, self.early_stop_patience,
            self.reduce_lr_patience, self.reduce_lr_factor, self.min_learning_rate, self.seed,
        )  # fmt: skip
        checkpoint = Checkpoint(self.checkpoints, fingerprint(values, prepared.recipe, data))
        saved = checkpoint.find() if self.resume else None
        device = evidence()
        origin = {
            "data_md5": provenance.data_md5(self.data_pointer),
            "git_commit": provenance.git_commit(Path()),
        }
        with tracking.open_run(
            self.tracking_uri, self.experiment, self.model,
            tags={"model": self.model, "system": self.system, "data_digest": data.data_digest,
                  "split_protocol": data.protocol, "split_digest": data.digest, **origin},
            params=values, dataset_kind=data.dataset.kind, run_id=saved.progress.run_id if saved else None,
        ) as run:  # fmt: skip
            result = fit(
                network, train, validation, plan,
                checkpoint=checkpoint, saved=saved, run_id=run.run_id,
                on_epoch=lambda row: run.log_epoch(int(row["epoch"]), row),
            )  # fmt: skip
            model = TrainedModel(network, result, values, prepared.recipe, data, device, origin, run.run_id)
            model.write(self.trained, self.model, self.system, self.seed)
            run.log_folder(self.trained)

    def tidy(self) -> None:
        """Remove the checkpoint: the trained model is in place."""
        shutil.rmtree(self.checkpoints, ignore_errors=True)
