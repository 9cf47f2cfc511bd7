"""Fields of the steps that look at each file of a data set: which images can be radiographs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from cxr.images.reading_options import OTHER_MODALITIES
from cxr.steps.base import Input
from cxr.steps.cache_fields import CachingStep
from cxr.steps.reading_fields import OtherModalities

if TYPE_CHECKING:
    from cxr.images.decoding import ImageLimits


class InspectionStep(CachingStep):
    """A step that looks at each file of a data set."""

    data: Annotated[Path, Input("Dataset"), Field(description="Folder of the raw images.")] = Path("data")
    other_modalities: OtherModalities = Field(default=list(OTHER_MODALITIES))
    max_megapixels: Annotated[float, Field(gt=0, description="Largest image, millions of pixels.")] = 50.0
    max_megabytes: Annotated[float, Field(gt=0, description="Largest file, millions of bytes.")] = 200.0
    min_side: Annotated[int, Field(ge=1, description="Shortest allowed side, pixels.")] = 64
    max_aspect: Annotated[float, Field(ge=1, description="Largest ratio of longer to shorter side.")] = 4.0
    colour_tolerance: Annotated[
        int,
        Field(ge=0, le=255, description="A pixel is coloured if its channels differ by more grey levels."),
    ] = 8
    workers: Annotated[int, Field(ge=0, description="Threads that read images; 0: one per core.")] = 0

    @property
    def image_limits(self) -> ImageLimits:
        """Limits that an image must keep to be accepted as a radiograph."""
        from cxr.images.decoding import ImageLimits
        from cxr.images.reading_options import ReadingOptions

        return ImageLimits(
            options=ReadingOptions(
                max_pixels=round(self.max_megapixels * 1e6),
                scale_16_bit=False,  # the policy of depth_16 decides
                other_modalities=frozenset(self.other_modalities),
            ),
            max_bytes=round(self.max_megabytes * 1e6),
            min_side=self.min_side,
            max_aspect=self.max_aspect,
            colour_tolerance=self.colour_tolerance,
        )
