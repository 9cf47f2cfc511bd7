"""Radiographs in DICOM files, read as a viewer shows them; nothing that tells of a patient is read at all."""

from __future__ import annotations

import io
import logging
import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cxr.errors import ImageError
from cxr.images.dicom.elements import Elements, meta_start, read_elements

if TYPE_CHECKING:
    from pydicom import Dataset

KEYWORDS = (
    "BitsAllocated", "BitsStored", "Columns", "DoubleFloatPixelData", "FloatPixelData", "HighBit", "ImagerPixelSpacing",
    "Modality", "ModalityLUTSequence", "NumberOfFrames", "PhotometricInterpretation", "PixelAspectRatio", "PixelData",
    "PixelPaddingRangeLimit", "PixelPaddingValue", "PixelPresentation", "PixelRepresentation", "PixelSpacing",
    "PlanarConfiguration", "PresentationIntentType", "RescaleIntercept", "RescaleSlope", "Rows", "SamplesPerPixel",
    "VOILUTFunction", "VOILUTSequence", "ViewCodeSequence", "ViewPosition", "WindowCenter", "WindowWidth",
)  # fmt: skip
"""The elements that are read; none of them is about a patient."""

_BESIDE_PIXELS = 16 * 1024 * 1024
"""Bytes that the other elements of a deflated file may take."""
_SILENT = logging.CRITICAL + 1
_PICTURES = (b"\xff\xd8\xff", b"\x89PNG")


def is_dicom(data: bytes) -> bool:
    """Tell whether a file's content is DICOM, by its first bytes.

    A file without a preamble is taken for DICOM only if it starts with the meta information that says how the rest
    is written: bare elements could be anything. A JPEG or PNG with the mark of DICOM inside stays what it is.

    Args:
        data: the whole content of the file, or its first 200 bytes.

    Returns:
        Whether :func:`read_dicom` would read it.
    """
    return not data.startswith(_PICTURES) and meta_start(data) is not None


def read_dicom(data: bytes, *, max_pixels: int) -> NDArray[np.uint8]:
    """Decode a frontal radiograph from a DICOM file, as a viewer would show it first.

    Args:
        data: the whole content of the file.
        max_pixels: largest number of pixels, decided by the tags before a pixel is decoded.

    Returns:
        uint8 ``(height, width)``, bone white, pixels square.

    Raises:
        ImageError: ``not_an_image``, ``truncated``, ``corrupt``, ``too_large``, ``animated``, ``modality``,
            ``no_pixels``, ``unsupported``, ``photometric``, ``raw`` or ``not_frontal``; its detail holds no value of a
            tag but sizes, and words of fixed lists.
    """
    from pydicom.datadict import tag_for_keyword

    from cxr.images.dicom.display import grey_levels, square_pixels
    from cxr.images.dicom.stored import READABLE, stored_values
    from cxr.images.dicom.suitability import refuse_unsuitable

    _silence_pydicom()
    wanted = {tag for keyword in KEYWORDS if (tag := tag_for_keyword(keyword)) is not None}
    elements = read_elements(data, wanted, max_inflated=2 * max_pixels + _BESIDE_PIXELS)
    if elements.syntax not in READABLE:
        raise ImageError("unsupported", "pixels coded in a way that is not read here; export the picture uncompressed")
    try:
        tags = _dataset(elements)
        refuse_unsuitable(tags, max_pixels)
        return square_pixels(tags, grey_levels(tags, stored_values(tags, elements.syntax)), max_pixels)
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("too_large", "the picture does not fit into the memory that it may take") from None
    except Exception:
        # pydicom, gdcm and NumPy raise nearly any kind of error about damaged values, and say these values in them.
        raise ImageError("corrupt", "the DICOM file is damaged or breaks the standard; export it again") from None


def _dataset(elements: Elements) -> Dataset:
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset
    from pydicom.uid import UID

    encoding = elements.encoding
    tags = read_dataset(io.BytesIO(elements.found), encoding.implicit, encoding.little)
    tags.file_meta = FileMetaDataset()
    tags.file_meta.TransferSyntaxUID = UID(elements.syntax)
    return tags


def _silence_pydicom() -> None:
    """Keep values of tags out of logs and warnings; said each time, as programs set up their logs when they like."""
    from pydicom import config

    logger = logging.getLogger("pydicom")
    if logger.level != _SILENT:
        logger.setLevel(_SILENT)
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
    config.settings.reading_validation_mode = config.IGNORE
