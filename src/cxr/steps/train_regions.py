"""Train regions: fit a detector of opacities on the training images of the split; validation decides on the epoch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from cxr.freed_memory import keep_freed_memory
from cxr.models.pretrained_networks import DETECTOR_BACKBONES
from cxr.steps.base import TRAIN_GPU_IMAGE, TRAIN_IMAGE, Input
from cxr.steps.training_fields import TrainingStep
from cxr.tables import read_table
from cxr.training.parameter_checks import optimizer_problems

if TYPE_CHECKING:
    from cxr.regions.session import RegionTrainingSettings


def _check_backbone(name: str) -> str:
    if name not in DETECTOR_BACKBONES:
        raise ValueError(f"one of {', '.join(DETECTOR_BACKBONES)}")
    return name


class TrainRegions(TrainingStep):
    """Train one detector of opacities. The best epoch on validation is kept, and a killed run resumes."""

    name: ClassVar[str] = "train_regions"
    follows: ClassVar[str] = "register"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "regions.{model}")
    container_image: ClassVar[str | None] = TRAIN_IMAGE
    gpu_image: ClassVar[str | None] = TRAIN_GPU_IMAGE

    data: Annotated[
        Path, Input("Dataset"), Field(description="Folder of the raw images, for the boxes of their opacities.")
    ] = Path("data")

    backbone: Annotated[
        str,
        AfterValidator(_check_backbone),
        Field(description="Network whose feature maps the detector uses: efficientnet_lite0 or resnet50v2."),
    ] = "efficientnet_lite0"
    squeeze_excitation: Annotated[
        bool, Field(description="Whether channels of the feature maps are weighted by what the whole image shows.")
    ] = False
    channels: Annotated[int, Field(ge=8, le=512, description="Channels of the feature pyramid and of the heads.")] = 64
    convolutions: Annotated[int, Field(ge=0, le=8, description="Convolutions of each head before its last one.")] = 2
    dropout: Annotated[
        float,
        Field(ge=0, lt=1, description="Share of the features dropped before the output for the whole image."),
    ] = 0.2
    focal_balance: Annotated[
        float, Field(gt=0, lt=1, description="Focal loss: weight of anchors that stand for a box; others get the rest.")
    ] = 0.25
    focal_focus: Annotated[
        float,
        Field(ge=0, le=10, description="Focal loss: how much less an anchor counts the surer its answer is right."),
    ] = 2.0
    box_loss_weight: Annotated[
        float, Field(ge=0, le=100, description="Weight of the loss of box positions, beside 1 for that of scores.")
    ] = 1.0
    image_loss_weight: Annotated[
        float,
        Field(ge=0, le=100, description="Weight of the loss of the output for the whole image; 0 does not train it."),
    ] = 1.0
    min_score: Annotated[float, Field(gt=0, lt=1, description="Lowest score of a box that is proposed at all.")] = 0.05
    max_overlap: Annotated[
        float,
        Field(ge=0, le=1, description="Intersection over union above which two boxes are taken for one opacity."),
    ] = 0.3
    max_boxes: Annotated[int, Field(ge=1, le=1000, description="Most boxes of an image.")] = 20
    monitor: Annotated[
        Literal["loss", "mean_average_precision"],
        Field(description="Validation metric that decides on best epoch, early stopping and learning rate."),
    ] = "mean_average_precision"
    balance: Annotated[
        Literal["none", "oversample"], Field(description="Whether images of the rarer class are repeated.")
    ] = "none"

    @model_validator(mode="after")
    def _optimizer_fits(self) -> Self:
        problems = optimizer_problems(dict(self), [self.optimizer])
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def settings(self) -> RegionTrainingSettings:
        """Collect what the detector depends on beside its images."""
        from cxr.regions.session import RegionTrainingSettings

        names = RegionTrainingSettings.__dataclass_fields__
        return RegionTrainingSettings(**{name: getattr(self, name) for name in names})

    def run(self) -> None:
        """Read split, images and boxes, train, write network, metadata, history and facts about the training."""
        keep_freed_memory()
        self.check_store()
        from cxr.models.backend import load_keras

        load_keras()

        from cxr.data.boxes import read_boxes
        from cxr.files import MANIFEST_FILE
        from cxr.images.prepared import PreparedImages
        from cxr.regions.session import RegionTrainingSession
        from cxr.training.split_data import SplitData

        data = SplitData.read(self.manifest, self.splits)
        prepared = PreparedImages.open(self.prepared, self.recipe)
        manifest = read_table(self.manifest / MANIFEST_FILE)
        session = RegionTrainingSession(
            self.settings(), prepared, data, read_boxes(self.data), manifest, self.checkpoints, resume=self.resume
        )
        self.train_and_write(session, prepared, data, mirrored=False, detector=session.detector)
