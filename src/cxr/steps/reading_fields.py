"""Fields of the steps that read images of strangers: what is accepted beside the usual files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, Field

from cxr.images.reading_options import OTHER_MODALITIES
from cxr.steps.base import Step

if TYPE_CHECKING:
    from cxr.images.reading_options import ReadingOptions


def _to_capitals(modalities: list[str]) -> list[str]:
    return [modality.strip().upper() for modality in modalities]


OtherModalities = Annotated[
    list[str],
    AfterValidator(_to_capitals),
    Field(
        description="DICOM modalities that count as radiography beside those of the standard, with a warning; "
        "[] accepts none."
    ),
]


class ReadingStep(Step):
    """A step that predicts for files from outside."""

    other_modalities: OtherModalities = Field(default=list(OTHER_MODALITIES))
    scale_16_bit: Annotated[
        bool,
        Field(
            description="Accept PNG of 16 bits, with a warning: the range from the smallest to the largest value is "
            "stretched to 0 to 255."
        ),
    ] = False

    def reading_options(self, max_pixels: int) -> ReadingOptions:
        """What is accepted when a file is read.

        Args:
            max_pixels: largest number of pixels.

        Returns:
            The options.
        """
        from cxr.images.reading_options import ReadingOptions

        return ReadingOptions(max_pixels, self.scale_16_bit, frozenset(self.other_modalities))
