"""Converts stored values to the grey levels that a viewer shows (DICOM PS3.3, C.11.1 and C.11.2; PS3.4, annex N).

The grey level of a pixel depends only on its stored value, which has at most 16 bits. So it is computed once for each
possible value and then looked up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cxr.errors import ImageError

if TYPE_CHECKING:
    from pydicom import Dataset

CLIPPED_QUANTILES = (0.005, 0.995)
"""Quantiles of the values that become black and white where a file states no window. Letters and collimator edges are
rarer than that; lung and heart are not."""
MAX_PIXEL_ASPECT = 4.0
"""Largest ratio of the sides of a pixel."""
_SQUARE_TOLERANCE = 1.01


def to_grey_levels(dataset: Dataset, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert stored values as a viewer does: rescale and window them, and show bone white and padding black.

    A VOI LUT is preferred to a window. An empty table is ignored, and so is a broken one beside a window. Of several
    windows the first counts, and a window without a width is ignored. Without either, values of 8 bits stay as they
    are, and deeper ones are stretched between two quantiles.

    Args:
        dataset: elements that describe the image.
        values: stored values ``(rows, columns)``, 8 or 16 bits, signed or unsigned.

    Returns:
        uint8 ``(rows, columns)``, 0 (black) to 255 (white).

    Raises:
        ImageError: ``corrupt``.
    """
    lowest = int(np.iinfo(values.dtype).min)
    levels = np.arange(lowest, int(np.iinfo(values.dtype).max) + 1, dtype=np.int32)
    indices = values.view(np.uint8 if values.dtype.itemsize == 1 else np.uint16)
    if lowest:
        levels = np.roll(levels, lowest)  # index 0 holds the value 0, as in the unsigned view
    padding = _find_padding(dataset, levels, signed=lowest < 0)
    brightness = _to_brightness(dataset, levels, indices, padding)
    if str(dataset.PhotometricInterpretation).strip() == "MONOCHROME1":
        brightness = 1.0 - brightness
    table = np.rint(np.clip(brightness, 0.0, 1.0) * 255).astype(np.uint8)
    table[padding] = 0
    grey: NDArray[np.uint8] = table[indices]
    return grey


def make_pixels_square(dataset: Dataset, grey: NDArray[np.uint8], max_pixels: int) -> NDArray[np.uint8]:
    """Resize an image whose pixels are not square, by enlarging the coarser side.

    Args:
        dataset: elements that describe the image.
        grey: uint8 ``(rows, columns)``.
        max_pixels: largest number of pixels afterwards.

    Returns:
        uint8 ``(height, width)``; the same array where the pixels are square or their shape is not stated.

    Raises:
        ImageError: ``too_large``, or as :func:`find_enlargement`.
    """
    height, width = (round(side * factor) for side, factor in zip(grey.shape, find_enlargement(dataset), strict=True))
    if (height, width) == grey.shape:
        return grey
    if height * width > max_pixels:
        raise ImageError(
            "too_large",
            f"expected at most {max_pixels} square pixels, received size={width}x{height}; send a smaller image",
        )
    resized: NDArray[np.uint8] = cv2.resize(grey, (width, height), interpolation=cv2.INTER_LINEAR)
    return resized


def find_enlargement(dataset: Dataset) -> tuple[float, float]:
    """Find how much an image must be enlarged so that its pixels are square.

    Args:
        dataset: elements that describe the image.

    Returns:
        Factors of height and width. One of them is 1; both are 1 where the pixels are square or their shape is not
        stated.

    Raises:
        ImageError: ``corrupt`` for pixels whose sides differ more than :data:`MAX_PIXEL_ASPECT` times.
    """
    pixel_height, pixel_width = _pixel_sides(dataset)
    ratio = pixel_height / pixel_width
    if 1 / _SQUARE_TOLERANCE <= ratio <= _SQUARE_TOLERANCE:
        return 1.0, 1.0
    if not 1 / MAX_PIXEL_ASPECT <= ratio <= MAX_PIXEL_ASPECT:
        raise ImageError(
            "corrupt", f"expected pixels at most {MAX_PIXEL_ASPECT:g} times as long as wide, received more"
        )
    return max(ratio, 1.0), max(1 / ratio, 1.0)


def _to_brightness(
    dataset: Dataset, levels: NDArray[np.int32], indices: NDArray[Any], padding: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Return the brightness of each stored value before bone is made white; values outside 0 to 1 are clipped later."""
    rescaled = _rescale(dataset, levels)
    window = _first_window(dataset)
    lut = _first_table(dataset, "VOILUTSequence")
    if lut is not None:
        try:
            brightness, bits = _apply_lut(dataset, lut, rescaled)
        except Exception:
            if window is None:
                raise
        else:
            # Many files state 16 bits for tables of 12 bits. Taken at their word, the image would be nearly black.
            return brightness / float(max((1 << min(bits, int(brightness.max()).bit_length())) - 1, 1))
    if window is not None:
        return _apply_window(rescaled, *window)
    if int(dataset.BitsStored) == 8 and levels.min() == 0 and np.array_equal(rescaled, levels):
        return rescaled / 255.0
    low, high = _quantiles(rescaled, indices, padding)
    return (rescaled - low) / (high - low) if high > low else np.zeros_like(rescaled)


def _rescale(dataset: Dataset, levels: NDArray[np.int32]) -> NDArray[np.float64]:
    """Convert stored values to the unit of windows."""
    lut = _first_table(dataset, "ModalityLUTSequence")
    if lut is not None:
        return _apply_lut(dataset, lut, levels.astype(np.float64))[0]
    slope, intercept = _first_number(dataset, "RescaleSlope"), _first_number(dataset, "RescaleIntercept")
    if slope is None or intercept is None:
        return levels.astype(np.float64)
    return levels.astype(np.float64) * slope + intercept


def _first_table(dataset: Dataset, keyword: str) -> Dataset | None:
    """Return the first lookup table of a sequence that has a description and entries."""
    return next((lut for lut in dataset.get(keyword) or () if lut.get("LUTDescriptor") and lut.get("LUTData")), None)


def _apply_lut(dataset: Dataset, lut: Dataset, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Look values up in a table of the file; also return how many bits the entries have, as the file states."""
    entry_count, first_value, bits = (int(value) for value in lut.LUTDescriptor)
    entry_count = entry_count & 0xFFFF or 0x10000
    first_value = _with_sign(first_value, signed=bool(values.min() < 0))
    data = lut.LUTData
    if isinstance(data, bytes):
        order = "<" if dataset.file_meta.TransferSyntaxUID.is_little_endian else ">"
        has_bytes = len(data) == entry_count + entry_count % 2
        data = np.frombuffer(data, np.uint8 if has_bytes else np.dtype(f"{order}u2"))
    entries = np.asarray(data, dtype=np.float64)[:entry_count]
    if len(entries) < entry_count or entries.min() < 0:
        raise ImageError(
            "corrupt",
            f"expected a table of {entry_count} grey levels, received entries={len(entries)}; export it again",
        )
    return entries[np.clip(np.rint(values) - first_value, 0, entry_count - 1).astype(np.int64)], bits


def _first_window(dataset: Dataset) -> tuple[float, float, str] | None:
    """Return centre, width and function of the first window, or None if there is none."""
    centre, width = _first_number(dataset, "WindowCenter"), _first_number(dataset, "WindowWidth")
    function = str(dataset.get("VOILUTFunction") or "LINEAR").strip().upper()
    if centre is None or width is None or width <= 0 or (function == "LINEAR" and width < 1):
        return None
    return centre, width, function


def _apply_window(values: NDArray[np.float64], centre: float, width: float, function: str) -> NDArray[np.float64]:
    if function == "SIGMOID":
        return np.asarray(1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -500, 500))), dtype=np.float64)
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0.0, 1.0)
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)


def _quantiles(rescaled: NDArray[np.float64], indices: NDArray[Any], padding: NDArray[np.bool_]) -> tuple[float, float]:
    """Return the rescaled values at :data:`CLIPPED_QUANTILES` of the image's pixels, padding left out."""
    counts = np.zeros(len(rescaled), dtype=np.int64)
    for row in indices:
        counts += np.bincount(row, minlength=len(rescaled))
    counts[padding] = 0
    order = np.argsort(rescaled, kind="stable")
    cumulative = np.cumsum(counts[order])
    if not cumulative[-1]:
        return 0.0, 0.0
    low, high = np.searchsorted(cumulative, np.asarray(CLIPPED_QUANTILES) * cumulative[-1])
    return float(rescaled[order[low]]), float(rescaled[order[high]])


def _find_padding(dataset: Dataset, levels: NDArray[np.int32], *, signed: bool) -> NDArray[np.bool_]:
    """Tell which stored values mean that there is no image."""
    padding_value = dataset.get("PixelPaddingValue")
    if padding_value is None:
        return np.zeros(len(levels), dtype=np.bool_)
    range_limit = dataset.get("PixelPaddingRangeLimit")
    # In many files it is unsigned where the pixels are signed, or the other way round.
    ends = [
        _with_sign(int(value), signed=signed)
        for value in (padding_value, padding_value if range_limit is None else range_limit)
    ]
    return np.asarray((levels >= min(ends)) & (levels <= max(ends)))


def _with_sign(value: int, *, signed: bool) -> int:
    """Read the 16 bits of a value as signed or as unsigned."""
    if signed:
        return value - 0x10000 if value > 0x7FFF else value
    return value & 0xFFFF


def _pixel_sides(dataset: Dataset) -> tuple[float, float]:
    """Return height and width of a pixel in any unit; both are 1 if the file does not state them."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        sides = _numbers(dataset, keyword)
        if len(sides) == 2 and all(0 < side < np.inf for side in sides):
            return sides[0], sides[1]
    return 1.0, 1.0


def _first_number(dataset: Dataset, keyword: str) -> float | None:
    """Return the first number of an element, or None if there is none or it is not finite."""
    number = next(iter(_numbers(dataset, keyword)), np.nan)
    return number if np.isfinite(number) else None


def _numbers(dataset: Dataset, keyword: str) -> list[float]:
    """Return the numbers of an element, empty values left out; some senders write decimal commas."""
    text = dataset.get_item(keyword).value if keyword in dataset else b""
    parts = (text or b"").decode("ascii", "replace").replace(",", ".").split("\\")
    return [float(part) for part in (part.strip(" \0") for part in parts) if part]
