"""Refuses DICOM files that are not a readable frontal radiograph, by their tags and before a pixel is decoded.

Messages contain only values from the lists below, because a tag can hold any text, even a patient's name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cxr.errors import ImageError
from cxr.images.reading_options import ReadingOptions

if TYPE_CHECKING:
    from pydicom import Dataset

RADIOGRAPH_MODALITIES = frozenset({"CR", "DX", "RG", "RF", "OT", "SC"})
"""Accepted modalities: computed and digital radiography, scanned radiographs, single images from a fluoroscopy room,
and what converters write for images of unknown origin (``OT``; ``SC`` is not in the standard, but occurs)."""

_OTHER_MODALITIES = {
    "CT": "computed tomography", "MR": "magnetic resonance", "US": "ultrasound", "MG": "mammography",
    "NM": "nuclear medicine", "PT": "positron emission tomography", "XA": "angiography", "PX": "panoramic dental X-ray",
    "IO": "dental X-ray", "BMD": "bone density", "ES": "endoscopy", "XC": "photography", "SM": "slide microscopy",
    "OP": "eye photography", "OCT": "optical tomography", "ECG": "electrocardiogram", "SR": "report",
    "DOC": "document", "SEG": "segmentation", "PR": "presentation state", "KO": "list of images",
    "RTIMAGE": "radiotherapy image", "RTDOSE": "radiotherapy dose", "RTPLAN": "radiotherapy plan",
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


def refuse_unsuitable(dataset: Dataset, options: ReadingOptions) -> None:
    """Refuse a file that is not one grey frontal radiograph of an accepted size.

    A missing tag is no reason to refuse a file, because many converted files have few tags.

    Args:
        dataset: the elements that describe the image.
        options: what is accepted.

    Raises:
        ImageError: ``modality``, ``no_pixels``, ``unsupported``, ``animated``, ``photometric``, ``too_large``, ``raw``,
            ``not_frontal`` or ``corrupt``.
    """
    _refuse_modality(dataset, options)
    if "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset:
        raise ImageError(
            "unsupported", "expected whole numbers as pixels, received fractions; export the image with 16 bits"
        )
    if "PixelData" not in dataset:
        raise ImageError("no_pixels", "the DICOM file holds no image, or was truncated before it; export the image")
    frames = _get_number(dataset, "NumberOfFrames", 1)
    if frames > 1:
        raise ImageError("animated", f"expected one image, received frames={frames}; export one of them")
    _refuse_colour(dataset)
    _refuse_size(dataset, options.max_pixels)
    if _get_text(dataset, "PresentationIntentType") == "FOR PROCESSING":
        raise ImageError("raw", "the values of a detector (for processing); export the image for presentation")
    _refuse_side_view(dataset)


def other_modality(dataset: Dataset) -> str:
    """Return the modality of a file if it is none of the standard's for radiographs.

    Args:
        dataset: the elements that describe the image.

    Returns:
        The modality in capitals; empty if the file states none or one of :data:`RADIOGRAPH_MODALITIES`.
    """
    modality = _get_text(dataset, "Modality")
    return "" if modality in RADIOGRAPH_MODALITIES else modality


def _refuse_modality(dataset: Dataset, options: ReadingOptions) -> None:
    modality = other_modality(dataset)
    if not modality or options.other_modalities is None or modality in options.other_modalities:
        return
    accepted = ", ".join([*sorted(RADIOGRAPH_MODALITIES), *sorted(options.other_modalities)])
    if known := _OTHER_MODALITIES.get(modality):
        raise ImageError(
            "modality", f"expected a radiograph ({accepted}), received {modality}, {known}; send a radiograph"
        )
    raise ImageError(
        "modality",
        f"expected a radiograph ({accepted}), received another modality; if it is a radiograph, "
        "add its modality to other_modalities",
    )


def _refuse_colour(dataset: Dataset) -> None:
    photometric = _get_text(dataset, "PhotometricInterpretation")
    if photometric not in ("MONOCHROME1", "MONOCHROME2"):
        if photometric not in _COLOURS:
            raise ImageError(
                "corrupt", "the DICOM file does not say whether high values are black or white; export it again"
            )
        raise ImageError(
            "photometric", f"expected MONOCHROME1 or MONOCHROME2, received {photometric}; export it as grey"
        )
    if _get_number(dataset, "SamplesPerPixel", 1) != 1 or _get_text(dataset, "PixelPresentation") in (
        "COLOR", "MIXED", "TRUE_COLOR",
    ):  # fmt: skip
        raise ImageError("photometric", "expected one grey level per pixel, received several; export it as grey")


def _refuse_size(dataset: Dataset, max_pixels: int) -> None:
    rows, columns = _get_number(dataset, "Rows", 0), _get_number(dataset, "Columns", 0)
    if rows < 1 or columns < 1:
        raise ImageError("corrupt", f"a DICOM image of {columns}x{rows} pixels; export it again")
    if rows * columns > max_pixels:
        raise ImageError(
            "too_large", f"expected at most {max_pixels} pixels, received size={columns}x{rows}; send a smaller image"
        )
    allocated, stored = _get_number(dataset, "BitsAllocated", 0), _get_number(dataset, "BitsStored", 0)
    high_bit = _get_number(dataset, "HighBit", stored - 1)
    if allocated not in (8, 16) or not 8 <= stored <= allocated or not stored - 1 <= high_bit < allocated:
        received = f"bits_allocated={allocated}, bits_stored={stored}, high_bit={high_bit}"
        raise ImageError(
            "unsupported", f"expected 8 to 16 bits a pixel in 8 or 16, received {received}; export the image with 16"
        )
    if _get_number(dataset, "PixelRepresentation", 0) not in (0, 1):
        raise ImageError("corrupt", "the DICOM file does not say whether its pixels have a sign; export it again")


def _refuse_side_view(dataset: Dataset) -> None:
    view = _SIDE_VIEWS.get(_get_text(dataset, "ViewPosition"))
    for code in dataset.get("ViewCodeSequence") or ():
        view = view or _SIDE_CODES.get(_get_text(code, "CodeValue"))
    if view:
        raise ImageError("not_frontal", f"expected a frontal view (PA or AP), received {view}; choose another image")


def _get_text(dataset: Dataset, keyword: str) -> str:
    return str(dataset.get(keyword) or "").strip().upper()


def _get_number(dataset: Dataset, keyword: str, default: int) -> int:
    try:
        value: Any = dataset.get(keyword)
        return default if value is None or value == "" else int(value)
    except (TypeError, ValueError):
        detail = f"expected a whole number as {keyword} of the DICOM file, received something else; export it again"
        raise ImageError("corrupt", detail) from None
