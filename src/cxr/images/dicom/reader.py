"""Decodes radiographs in DICOM files as a viewer shows them; decoding never reads elements about the patient."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cxr.errors import ImageError
from cxr.images.dicom.elements import NATIVE, DicomElements, find_elements_start, read_elements, read_transfer_syntax
from cxr.images.headers import ImageHeader
from cxr.images.reading_options import ReadingOptions

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

_MAX_OTHER_BYTES = 16 * 1024 * 1024
"""Bytes that the elements other than the pixels of a deflated file may take."""
_SILENT = logging.CRITICAL + 1
_JPEG_OR_PNG = (b"\xff\xd8\xff", b"\x89PNG")


def is_dicom(data: bytes) -> bool:
    """Tell by the first bytes whether a file is DICOM.

    A file without preamble and meta information is told by its first elements. A JPEG or PNG that contains the prefix
    of DICOM is no DICOM file.

    Args:
        data: the whole content of the file, or its first 512 bytes.

    Returns:
        Whether :func:`read_dicom` would read it.
    """
    return not data.startswith(_JPEG_OR_PNG) and find_elements_start(data) is not None


def has_compressed_pixels(data: bytes) -> bool:
    """Tell whether a file is DICOM whose pixels a decoder of JPEG, JPEG-LS, JPEG 2000 or RLE must decode.

    Args:
        data: the whole content of the file.

    Returns:
        False also for a file whose meta information is damaged.
    """
    if not is_dicom(data):
        return False
    try:
        return read_transfer_syntax(data) not in NATIVE | {""}
    except ImageError:
        return False


def read_dicom(data: bytes, options: ReadingOptions) -> tuple[ImageHeader, NDArray[np.uint8]]:
    """Decode a frontal radiograph from a DICOM file as a viewer first shows it.

    Args:
        data: the whole content of the file.
        options: what is accepted.

    Returns:
        The header, and uint8 ``(height, width)``, bone white, pixels square.

    Raises:
        ImageError: ``not_an_image``, ``empty`` (no coded pixels), ``truncated``, ``corrupt``, ``too_large``,
            ``animated``, ``modality``, ``no_pixels``, ``unsupported``, ``photometric``, ``raw`` or ``not_frontal``. Its
            detail contains no values of tags except sizes and terms from fixed lists.
    """
    from cxr.images.dicom.display import make_pixels_square, to_grey_levels
    from cxr.images.dicom.stored import decode_stored_values

    with _open_radiograph(data, options) as (syntax, dataset):
        header = _describe(dataset)
        grey = to_grey_levels(dataset, decode_stored_values(dataset, syntax))
        return header, make_pixels_square(dataset, grey, options.max_pixels)


def read_dicom_header(data: bytes, options: ReadingOptions) -> ImageHeader:
    """Read what a DICOM file says about its radiograph, without decoding a pixel.

    Args:
        data: the whole content of the file.
        options: what is accepted.

    Returns:
        The header.

    Raises:
        ImageError: as :func:`read_dicom`, except what only decoding shows.
    """
    with _open_radiograph(data, options) as (_, dataset):
        return _describe(dataset)


def _describe(dataset: Dataset) -> ImageHeader:
    from cxr.images.dicom.display import find_enlargement
    from cxr.images.dicom.suitability import other_modality

    bits = int(dataset.BitsStored)
    return ImageHeader(
        "DICOM",
        int(dataset.Columns),
        int(dataset.Rows),
        "L" if bits <= 8 else "I;16",
        bits,
        enlargement=find_enlargement(dataset),
        other_modality=other_modality(dataset),
    )


@contextmanager
def _open_radiograph(data: bytes, options: ReadingOptions) -> Iterator[tuple[str, Dataset]]:
    """Give transfer syntax and elements of a suitable file."""
    from cxr.images.dicom.stored import SUPPORTED_SYNTAXES
    from cxr.images.dicom.suitability import refuse_unsuitable

    with open_elements(data, KEYWORDS, options) as (syntax, dataset):
        if syntax not in SUPPORTED_SYNTAXES:
            raise ImageError(
                "unsupported",
                f"pixels coded in a way that is not read here ({_name_syntax(syntax)}); export the image uncompressed",
            )
        refuse_unsuitable(dataset, options)
        yield syntax, dataset


@contextmanager
def open_elements(data: bytes, keywords: Sequence[str], options: ReadingOptions) -> Iterator[tuple[str, Dataset]]:
    """Read some elements of a DICOM file, and translate what damaged values raise in the block.

    Args:
        data: the whole content of the file.
        keywords: the elements; no others are read.
        options: what is accepted.

    Yields:
        UID of the transfer syntax, and the elements.

    Raises:
        ImageError: ``not_an_image``, ``truncated``, ``corrupt`` or ``too_large``.
    """
    from pydicom.datadict import tag_for_keyword

    _silence_pydicom()
    tags = {tag for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None}
    elements = read_elements(data, tags, max_inflated=2 * options.max_pixels + _MAX_OTHER_BYTES)
    try:
        yield elements.syntax, _to_dataset(elements)
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(
            "too_large", "the image does not fit into the memory that may be used; send a smaller image"
        ) from None
    except Exception:
        # On damaged values pydicom, gdcm and NumPy raise almost any error, and their messages contain these values.
        raise ImageError("corrupt", "the DICOM file is damaged or breaks the standard; export it again") from None


def _name_syntax(syntax: str) -> str:
    """Return the name of a transfer syntax as the standard gives it; a private one has none."""
    from pydicom.uid import UID

    name = UID(syntax).name  # the number itself for one that is not in the standard
    return "a transfer syntax that is not in the standard" if name == syntax else name


def _to_dataset(elements: DicomElements) -> Dataset:
    from pydicom.dataset import FileMetaDataset
    from pydicom.filereader import read_dataset
    from pydicom.uid import UID

    encoding = elements.encoding
    dataset = read_dataset(io.BytesIO(elements.content), encoding.implicit, encoding.little_endian)
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(elements.syntax)
    return dataset


def _silence_pydicom() -> None:
    """Keep values of tags out of logs and warnings.

    It is repeated for each file, because a program may set up its logs at any time.
    """
    from pydicom import config

    logger = logging.getLogger("pydicom")
    if logger.level != _SILENT:
        logger.setLevel(_SILENT)
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
    config.settings.reading_validation_mode = config.IGNORE
