"""Which DICOM objects are a frontal radiograph that can be read, told from their tags before a pixel is decoded.

Sentences name values of these lists only: a tag can hold anything that somebody typed, a patient's name included.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cxr.errors import ImageError

if TYPE_CHECKING:
    from pydicom import Dataset

RADIOGRAPHS = frozenset({"CR", "DX", "RG", "RF", "OT", "SC"})
"""Modalities that are taken: computed and digital radiography, scanned films, single pictures of a fluoroscopy room,
and what converters write for pictures whose origin they don't know (``OT``; ``SC`` is no standard value, but seen)."""

_OTHERS = {
    "CT": "computed tomography", "MR": "magnetic resonance", "US": "ultrasound", "MG": "mammography",
    "NM": "nuclear medicine", "PT": "positron emission tomography", "XA": "angiography", "PX": "panoramic dental X-ray",
    "IO": "dental X-ray", "BMD": "bone density", "ES": "endoscopy", "XC": "photography", "SM": "slide microscopy",
    "OP": "eye photography", "OCT": "optical tomography", "ECG": "electrocardiogram", "SR": "report",
    "DOC": "document", "SEG": "segmentation", "PR": "presentation state", "KO": "list of pictures",
    "RTIMAGE": "radiotherapy picture", "RTDOSE": "radiotherapy dose", "RTPLAN": "radiotherapy plan",
    "RTSTRUCT": "radiotherapy contours",
}  # fmt: skip
_COLOURS = frozenset(
    {"RGB", "PALETTE COLOR", "YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_ICT", "YBR_RCT", "HSV", "ARGB", "CMYK"}
)
_SIDE_VIEWS = {
    "LL": "left lateral", "RL": "right lateral", "LATERAL": "lateral", "LAT": "lateral",
    "LLO": "left oblique", "RLO": "right oblique",
    "LLD": "lying on the left side", "RLD": "lying on the right side",
}  # fmt: skip
_SIDE_CODES = {
    "399067008": "lateral", "R-102CD": "lateral",
    "399198007": "right lateral", "R-10232": "right lateral",
    "399173006": "left lateral", "R-10236": "left lateral",
    "399182000": "oblique", "R-102C1": "oblique",
    "399184004": "left oblique", "R-10238": "left oblique",
    "399236003": "right oblique", "R-10234": "right oblique",
}  # fmt: skip
"""SNOMED codes of views, old and new (DICOM PS3.16, CID 4010)."""


def refuse_unsuitable(tags: Dataset, max_pixels: int) -> None:
    """Refuse what is no single grey frontal radiograph of a size that is taken.

    What a file doesn't say is not held against it: many converted files say little.

    Args:
        tags: the elements that describe the picture.
        max_pixels: largest number of pixels.

    Raises:
        ImageError: ``modality``, ``no_pixels``, ``unsupported``, ``animated``, ``photometric``, ``too_large``, ``raw``,
            ``not_frontal`` or ``corrupt``.
    """
    modality = _word(tags, "Modality")
    if modality and modality not in RADIOGRAPHS:
        found = f"{modality}, {_OTHERS[modality]}" if modality in _OTHERS else "another one"
        raise ImageError("modality", f"expected a radiograph ({', '.join(sorted(RADIOGRAPHS))}), received {found}")
    if "FloatPixelData" in tags or "DoubleFloatPixelData" in tags:
        raise ImageError("unsupported", "expected whole numbers as pixels, received fractions; export the picture")
    if "PixelData" not in tags:
        raise ImageError("no_pixels", "the DICOM file holds no picture, or was cut off before it")
    frames = _number(tags, "NumberOfFrames", 1)
    if frames > 1:
        raise ImageError("animated", f"expected one picture, received frames={frames}; export one of them")
    _refuse_colour(tags)
    _refuse_size(tags, max_pixels)
    if _word(tags, "PresentationIntentType") == "FOR PROCESSING":
        raise ImageError("raw", "the values of a detector (for processing); export the picture for presentation")
    _refuse_side_view(tags)


def _refuse_colour(tags: Dataset) -> None:
    photometric = _word(tags, "PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        if photometric not in _COLOURS:
            raise ImageError("corrupt", "the DICOM file does not say whether high values are black or white")
        raise ImageError(
            "photometric", f"expected MONOCHROME1 or MONOCHROME2, received {photometric}; export it as grey"
        )
    if _number(tags, "SamplesPerPixel", 1) != 1 or _word(tags, "PixelPresentation") in (
        "COLOR", "MIXED", "TRUE_COLOR",
    ):  # fmt: skip
        raise ImageError("photometric", "expected one grey level per pixel, received several; export it as grey")


def _refuse_size(tags: Dataset, max_pixels: int) -> None:
    rows, columns = _number(tags, "Rows", 0), _number(tags, "Columns", 0)
    if rows < 1 or columns < 1:
        raise ImageError("corrupt", f"a DICOM picture of {columns}x{rows} pixels")
    if rows * columns > max_pixels:
        raise ImageError("too_large", f"expected at most {max_pixels} pixels, received size={columns}x{rows}")
    allocated, stored = _number(tags, "BitsAllocated", 0), _number(tags, "BitsStored", 0)
    if allocated not in (8, 16) or not 8 <= stored <= allocated or _number(tags, "HighBit", stored - 1) != stored - 1:
        raise ImageError(
            "unsupported", f"expected 8 to 16 bits a pixel, received bits_allocated={allocated}, bits_stored={stored}"
        )
    if _number(tags, "PixelRepresentation", 0) not in (0, 1):
        raise ImageError("corrupt", "the DICOM file does not say whether its pixels have a sign")


def _refuse_side_view(tags: Dataset) -> None:
    view = _SIDE_VIEWS.get(_word(tags, "ViewPosition"))
    for code in tags.get("ViewCodeSequence") or ():
        view = view or _SIDE_CODES.get(_word(code, "CodeValue"))
    if view:
        raise ImageError("not_frontal", f"expected a frontal view (PA or AP), received {view}")


def _word(tags: Dataset, keyword: str) -> str:
    return str(tags.get(keyword) or "").strip().upper()


def _number(tags: Dataset, keyword: str, absent: int) -> int:
    value: Any = tags.get(keyword)
    return absent if value is None or value == "" else int(value)
