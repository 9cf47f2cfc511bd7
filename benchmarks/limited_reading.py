"""What it costs to decode a file in a process that can do nothing else, against decoding it in the own process.

Run it with ``python benchmarks/limited_reading.py``. Both ways take turns and the shortest of some tries counts, so
that other work on the machine changes it little.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from cxr.images.decoding import decode_picture
from cxr.images.sandbox import LimitedReader

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from support.dicom_files import dicom_file  # the tests know how to write one

ROUNDS = 40


def film(height: int, width: int) -> np.ndarray:
    """Draw grey levels that are as hard to compress as a radiograph: smooth, with the noise of a detector.

    Args:
        height: rows.
        width: columns.

    Returns:
        uint8 ``(height, width)``.
    """
    generator = np.random.default_rng(0)
    smooth = cv2.resize(generator.uniform(40, 220, (12, 12)), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.clip(smooth + generator.normal(0, 5, (height, width)), 0, 255).astype(np.uint8)


def seconds(work: Callable[[], object]) -> float:
    """Time one call.

    Args:
        work: what is called.

    Returns:
        Wall-clock seconds.
    """
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def main() -> None:
    """Print milliseconds and the ratio for each kind of file, and what a process costs to start."""
    cv2.setNumThreads(1)
    large, small = film(1600, 2000), film(1000, 1200)
    contents = {
        "JPEG": bytes(cv2.imencode(".jpeg", large, [cv2.IMWRITE_JPEG_QUALITY, 93])[1]),
        "small JPEG": bytes(cv2.imencode(".jpeg", small[:400, :500], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]),
        "DICOM, 12 bits": dicom_file(
            small.astype(np.uint16) * 16, BitsStored=12, WindowCenter=2048, WindowWidth=4096
        ),
    }  # fmt: skip
    with LimitedReader() as reader:
        started = seconds(lambda: reader.read(contents["small JPEG"]))
        print(f"a process is ready after {started:.1f} s\n")
        print(f"{'file':<16}{'KB':>6}{'megapixels':>12}{'own process':>14}{'limited':>10}{'ratio':>7}")
        for name, content in contents.items():
            own, limited = [], []
            for _ in range(ROUNDS):
                own.append(seconds(partial(decode_picture, content)))
                limited.append(seconds(partial(reader.read, content)))
            first, second = min(own) * 1000, min(limited) * 1000
            megapixels = decode_picture(content).grey.size / 1e6
            print(
                f"{name:<16}{len(content) / 1e3:>6.0f}{megapixels:>12.1f}"
                f"{first:>11.1f} ms{second:>7.1f} ms{second / first:>7.2f}"
            )


if __name__ == "__main__":
    main()
