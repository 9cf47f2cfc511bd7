"""Train: fit one network on the training images of the split; validation decides on the best epoch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from cxr.freed_memory import keep_freed_memory
from cxr.models.networks import check_architecture, option_problems
from cxr.steps.base import TRAIN_GPU_IMAGE, TRAIN_IMAGE
from cxr.steps.training_fields import TrainingStep
from cxr.training.parameter_checks import combination_problems
from cxr.training.processes import ProcessGroup

if TYPE_CHECKING:
    from cxr.training.training_settings import ClassifierTrainingSettings


class Train(TrainingStep):
    """Train one network. The best epoch on validation is kept, and a killed run resumes after its last epoch."""

    name: ClassVar[str] = "train"
    follows: ClassVar[str] = "reference"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "train", "models.{model}", "transfer.{model}")
    container_image: ClassVar[str | None] = TRAIN_IMAGE
    gpu_image: ClassVar[str | None] = TRAIN_GPU_IMAGE

    architecture: Annotated[str, AfterValidator(check_architecture), Field(description="Which network to build.")]
    label_smoothing: Annotated[
        float, Field(ge=0, lt=1, description="Share of each training label that is spread over both classes.")
    ] = 0.0
    mixup: Annotated[
        float,
        Field(
            ge=0,
            le=10,
            description="Mix pairs of training images and their labels, with shares from Beta(mixup, mixup); 0: none.",
        ),
    ] = 0.0
    devices: Annotated[
        int | None,
        Field(
            ge=1,
            le=64,
            description="Devices of this machine that divide each batch, more than 1 only with Keras's backend JAX; "
            "null: all GPUs with JAX, else one device.",
        ),
    ] = None
    phantom_train_images: Annotated[
        int | None,
        Field(
            ge=20,
            description="Most training images, if they are drawn phantoms, with the shares of both classes; null: all.",
        ),
    ] = None
    monitor: Annotated[
        Literal["loss", "auroc", "stressed_loss", "stressed_auroc"],
        Field(
            description="Validation metric that decides on best epoch, early stopping and learning rate; stressed: on "
            "validation images under the changes of the stress test."
        ),
    ] = "loss"
    stop_at_accuracy: Annotated[
        float | None,
        Field(gt=0, le=1, description="Training accuracy at which training stops (S3: 0.975); null never stops it."),
    ] = None
    dropout: Annotated[
        float | None, Field(ge=0, lt=1, description="Share of units dropped; null takes the value of the source.")
    ] = None
    batch_normalisation: Annotated[
        bool | None,
        Field(description="Whether the network's own layers are normalised; null does as the source does."),
    ] = None
    freeze_backbone: Annotated[
        bool,
        Field(
            description="Whether the first phase trains only the head on pretrained weights; false: the whole network "
            "is trained, in one phase."
        ),
    ] = True
    unfrozen_layers: Annotated[
        int, Field(ge=0, description="Number of last layers of the backbone that the second phase trains.")
    ] = 0
    fine_tune_epochs: Annotated[
        int, Field(ge=0, le=10_000, description="Maximum of epochs of the second phase; 0 leaves it out.")
    ] = 0
    fine_tune_optimizer: Annotated[
        Literal["adam", "adamw", "nadam", "rmsprop", "sgd"], Field(description="Keras optimizer of the second phase.")
    ] = "adam"
    fine_tune_learning_rate: Annotated[
        float, Field(gt=0, le=1, description="Learning rate of the first epoch of the second phase.")
    ] = 1e-5
    cut: Annotated[
        Literal["auto", "always", "never"],
        Field(description="Whether activations of frozen layers are computed once and kept; auto: on a CPU."),
    ] = "auto"
    augmented_views: Annotated[
        int,
        Field(
            ge=0,
            le=100,
            description="Augmented views per image, beside the plain one, whose activations are kept.",
        ),
    ] = 2
    balance: Annotated[
        Literal["none", "class_weights", "oversample"],
        Field(description="How the rarer class is balanced: class weights, repeated images, or not at all."),
    ] = "none"
    mirrored: Annotated[
        bool,
        Field(description="Whether a prediction is the mean of the image and its mirror image, wherever it is made."),
    ] = False

    @model_validator(mode="after")
    def _options_fit_together(self) -> Self:
        problems = option_problems(self.architecture, self.dropout, self.batch_normalisation, self.weights)
        problems += combination_problems(dict(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def settings(self) -> ClassifierTrainingSettings:
        """Collect what the trained network depends on beside its images."""
        from cxr.training.training_settings import ClassifierTrainingSettings

        return ClassifierTrainingSettings(
            **{name: getattr(self, name) for name in ClassifierTrainingSettings.__dataclass_fields__}
        )

    def execute(self) -> None:
        """Run the step; of the processes of one training, the first alone has outputs."""
        if ProcessGroup.read(os.environ).is_first:
            super().execute()
        else:
            self.check_inputs()
            self.run()

    def run(self) -> None:
        """Read split and images, train, write network, metadata, history and facts about the training."""
        keep_freed_memory()
        processes = ProcessGroup.read(os.environ)
        if processes.is_first:
            self.check_store()
        from cxr.models.backend import load_keras

        load_keras()
        from cxr.images.prepared import PreparedImages
        from cxr.training.data_parallel import choose_devices
        from cxr.training.session import TrainingSession
        from cxr.training.split_data import SplitData

        data = SplitData.read(self.manifest, self.splits)
        prepared = PreparedImages.open(self.prepared, self.recipe)
        with processes.joined():
            devices = choose_devices(self.devices, processes)
            session = TrainingSession(
                self.settings(), prepared, data, self.checkpoints, resume=self.resume, devices=devices
            )
            if processes.is_first:
                self.train_and_write(session, prepared, data, mirrored=self.mirrored)
            else:
                session.train()
