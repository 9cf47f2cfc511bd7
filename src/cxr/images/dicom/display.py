"""From stored values to the grey levels that a viewer shows (DICOM PS3.3, C.11.1 and C.11.2; PS3.4, annex N).

All of it is a function of one stored value, of at most 16 bits: it is computed once for each value and then looked up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from cxr.errors import ImageError

if TYPE_CHECKING:
    from pydicom import Dataset

TAILS = (0.005, 0.995)
"""Quantiles of the values that become black and white where a file says no window: letters and collimator edges are
rarer than that, lung and heart are not."""
MAX_STRETCH = 4.0
"""Largest ratio of the sides of a pixel."""
_SAME = 1.01


def grey_levels(tags: Dataset, values: NDArray[Any]) -> NDArray[np.uint8]:
    """Show stored values as a viewer would: rescaled, windowed, bone white, padding black.

    A VOI LUT goes before a window, the first of several counts, and a window that has no width is no window. Without
    either, values of 8 bits are taken as they are, and deeper ones are stretched between two quantiles.

    Args:
        tags: elements that describe the picture.
        values: stored values ``(rows, columns)``, 8 or 16 bits, with or without a sign.

    Returns:
        uint8 ``(rows, columns)``, 0 (black) to 255 (white).

    Raises:
        ImageError: ``corrupt``.
    """
    lowest = int(np.iinfo(values.dtype).min)
    steps = np.arange(lowest, int(np.iinfo(values.dtype).max) + 1, dtype=np.int32)
    places = values.view(np.uint8 if values.dtype.itemsize == 1 else np.uint16)
    if lowest:
        steps = np.roll(steps, lowest)  # place 0 holds the value 0, as in the bytes
    padding = _padding(tags, steps, signed=lowest < 0)
    shown = _shown(tags, steps, places, padding)
    if str(tags.PhotometricInterpretation).strip() == "MONOCHROME1":
        shown = 1.0 - shown
    table = np.rint(np.clip(shown, 0.0, 1.0) * 255).astype(np.uint8)
    table[padding] = 0
    grey: NDArray[np.uint8] = table[places]
    return grey


def square_pixels(tags: Dataset, grey: NDArray[np.uint8], max_pixels: int) -> NDArray[np.uint8]:
    """Make pixels square that are not, refining the coarser side.

    Args:
        tags: elements that describe the picture.
        grey: uint8 ``(rows, columns)``.
        max_pixels: largest number of pixels afterwards.

    Returns:
        uint8 ``(height, width)``; the same array where the pixels are square or nothing is said.

    Raises:
        ImageError: ``corrupt`` for pixels more than :data:`MAX_STRETCH` times as long as wide, ``too_large``.
    """
    high, wide = _pixel_sides(tags)
    ratio = high / wide
    if 1 / _SAME <= ratio <= _SAME:
        return grey
    if not 1 / MAX_STRETCH <= ratio <= MAX_STRETCH:
        raise ImageError("corrupt", f"expected pixels at most {MAX_STRETCH:g} times as long as wide, received more")
    rows, columns = grey.shape
    height, width = (round(rows * ratio), columns) if ratio > 1 else (rows, round(columns / ratio))
    if height * width > max_pixels:
        raise ImageError("too_large", f"expected at most {max_pixels} square pixels, received size={width}x{height}")
    stretched: NDArray[np.uint8] = cv2.resize(grey, (width, height), interpolation=cv2.INTER_LINEAR)
    return stretched


def _shown(
    tags: Dataset, steps: NDArray[np.int32], places: NDArray[Any], padding: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Brightness of each stored value, 0 to 1 and beyond, before bone is made white."""
    rescaled = _rescaled(tags, steps)
    if tags.get("VOILUTSequence"):
        shown, bits = _looked_up(tags, tags.VOILUTSequence[0], rescaled)
        # Tables of 12 bits are often said to have 16: the picture would be nearly black.
        return shown / float(max((1 << min(bits, int(shown.max()).bit_length())) - 1, 1))
    window = _window(tags)
    if window is not None:
        return _windowed(rescaled, *window)
    if int(tags.BitsStored) == 8 and steps.min() == 0 and np.array_equal(rescaled, steps):
        return rescaled / 255.0
    low, high = _quantiles(rescaled, places, padding)
    return (rescaled - low) / (high - low) if high > low else np.zeros_like(rescaled)


def _rescaled(tags: Dataset, steps: NDArray[np.int32]) -> NDArray[np.float64]:
    """What each stored value stands for, in the unit of windows."""
    if tags.get("ModalityLUTSequence"):
        return _looked_up(tags, tags.ModalityLUTSequence[0], steps.astype(np.float64))[0]
    slope, intercept = _first(tags.get("RescaleSlope")), _first(tags.get("RescaleIntercept"))
    if slope is None or intercept is None:
        return steps.astype(np.float64)
    return steps.astype(np.float64) * slope + intercept


def _looked_up(tags: Dataset, table: Dataset, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], int]:
    """Values of a table of the file, and how many bits it says that they have."""
    entries, first, bits = (int(value) for value in table.LUTDescriptor)
    entries = entries & 0xFFFF or 0x10000
    first = _as_stored(first, signed=bool(values.min() < 0))
    data = table.LUTData
    if isinstance(data, bytes):
        order = "<" if tags.file_meta.TransferSyntaxUID.is_little_endian else ">"
        data = np.frombuffer(data, np.uint8 if len(data) == entries + entries % 2 else np.dtype(f"{order}u2"))
    kept = np.asarray(data, dtype=np.float64)[:entries]
    if len(kept) < entries or kept.min() < 0:
        raise ImageError("corrupt", f"expected a table of {entries} grey levels, received entries={len(kept)}")
    return kept[np.clip(np.rint(values) - first, 0, entries - 1).astype(np.int64)], bits


def _window(tags: Dataset) -> tuple[float, float, str] | None:
    """Centre, width and function of the first window; None if there is none."""
    centre, width = _first(tags.get("WindowCenter")), _first(tags.get("WindowWidth"))
    function = str(tags.get("VOILUTFunction") or "LINEAR").strip().upper()
    if centre is None or width is None or width <= 0 or (function == "LINEAR" and width < 1):
        return None
    return centre, width, function


def _windowed(values: NDArray[np.float64], centre: float, width: float, function: str) -> NDArray[np.float64]:
    if function == "SIGMOID":
        return np.asarray(1.0 / (1.0 + np.exp(np.clip(-4.0 * (values - centre) / width, -500, 500))), dtype=np.float64)
    if function == "LINEAR_EXACT":
        return np.clip((values - centre) / width + 0.5, 0.0, 1.0)
    if width == 1:
        return (values > centre - 0.5).astype(np.float64)
    return np.clip((values - (centre - 0.5)) / (width - 1) + 0.5, 0.0, 1.0)


def _quantiles(rescaled: NDArray[np.float64], places: NDArray[Any], padding: NDArray[np.bool_]) -> tuple[float, float]:
    counts = np.zeros(len(rescaled), dtype=np.int64)
    for row in places:
        counts += np.bincount(row, minlength=len(rescaled))
    counts[padding] = 0
    order = np.argsort(rescaled, kind="stable")
    reached = np.cumsum(counts[order])
    if not reached[-1]:
        return 0.0, 0.0
    low, high = np.searchsorted(reached, np.asarray(TAILS) * reached[-1])
    return float(rescaled[order[low]]), float(rescaled[order[high]])


def _padding(tags: Dataset, steps: NDArray[np.int32], *, signed: bool) -> NDArray[np.bool_]:
    """Which stored values stand for no picture at all."""
    value = tags.get("PixelPaddingValue")
    if value is None:
        return np.zeros(len(steps), dtype=np.bool_)
    limit = tags.get("PixelPaddingRangeLimit")
    # Written without a sign where the values have one, or the other way round, in many files.
    ends = [_as_stored(int(one), signed=signed) for one in (value, value if limit is None else limit)]
    return np.asarray((steps >= min(ends)) & (steps <= max(ends)))


def _as_stored(value: int, *, signed: bool) -> int:
    if signed:
        return value - 0x10000 if value > 0x7FFF else value
    return value & 0xFFFF


def _pixel_sides(tags: Dataset) -> tuple[float, float]:
    """Height and width of a pixel, in any unit; both 1 if nothing is said."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "PixelAspectRatio"):
        sides = tags.get(keyword)
        if sides is not None and not isinstance(sides, str) and len(sides) == 2:
            high, wide = (float(side) for side in sides)
            if 0 < high < np.inf and 0 < wide < np.inf:
                return high, wide
    return 1.0, 1.0


def _first(value: Any) -> float | None:
    """The first of one or several numbers; None if there is none, or it isn't finite."""
    if value is None or value == "":
        return None
    first = float(value[0] if not isinstance(value, str) and hasattr(value, "__len__") else value)
    return first if np.isfinite(first) else None
