"""What is accepted when an image file is read: limits and kinds of files that a run may switch on."""

from __future__ import annotations

import json
from dataclasses import dataclass

MAX_PIXELS = 50_000_000
OTHER_MODALITIES = ("DR", "XR", "RX", "CXR", "XRAY", "X-RAY")
"""Names of radiography that are not in the DICOM standard (PS3.3, C.7.3.1.1.1), but that senders and converters write
in place of CR, DX or RG."""


@dataclass(frozen=True)
class ReadingOptions:
    """What is accepted when an image file is read.

    Attributes:
        max_pixels: largest number of pixels, checked in the header before decoding.
        scale_16_bit: whether PNG images of more than 8 bits are accepted. Their own range, from the smallest to the
            largest value, is stretched linearly to 0 to 255. They are refused otherwise, because such a file does not
            say which of its values are black and white.
        other_modalities: values of the DICOM element Modality, in capitals, that count as radiography beside those of
            the standard, with a warning; None accepts every modality.
    """

    max_pixels: int
    scale_16_bit: bool
    other_modalities: frozenset[str] | None

    def to_text(self) -> str:
        """Write the options as JSON; equal options give the same text."""
        others = self.other_modalities
        return json.dumps([self.max_pixels, self.scale_16_bit, None if others is None else sorted(others)])

    @classmethod
    def from_text(cls, text: str) -> ReadingOptions:
        """Read what :meth:`to_text` wrote."""
        max_pixels, scale_16_bit, others = json.loads(text)
        return cls(max_pixels, scale_16_bit, None if others is None else frozenset(others))


STRICT = ReadingOptions(MAX_PIXELS, scale_16_bit=False, other_modalities=frozenset(OTHER_MODALITIES))
"""For files from outside, where no step parameter says otherwise."""

VALIDATED = ReadingOptions(MAX_PIXELS, scale_16_bit=True, other_modalities=None)
"""For files that validation accepted: an accepted image is not judged a second time."""
