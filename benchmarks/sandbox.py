"""Time to decode a file in the sandbox, compared with decoding it in the calling process.

Run it with ``python benchmarks/sandbox.py``. Both ways take turns, and the shortest of several tries counts, so that
other work on the machine has little influence.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from cxr.images.decoding import decode_image
from cxr.images.reading_options import STRICT
from cxr.images.sandbox import SandboxedDecoder

sys.path.append(str(Path(__file__).parents[1] / "tests"))

from support.dicom_files import dicom_file  # the tests can write DICOM files

ROUNDS = 40


def draw_radiograph(height: int, width: int) -> np.ndarray:
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


def measure_seconds(function: Callable[[], object]) -> float:
    """Time one call.

    Args:
        function: the function to call.

    Returns:
        Wall-clock seconds.
    """
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    """Print the start time of a process, and milliseconds and their ratio for each kind of file."""
    cv2.setNumThreads(1)
    large, small = draw_radiograph(1600, 2000), draw_radiograph(1000, 1200)
    contents = {
        "JPEG": bytes(cv2.imencode(".jpeg", large, [cv2.IMWRITE_JPEG_QUALITY, 93])[1]),
        "small JPEG": bytes(cv2.imencode(".jpeg", small[:400, :500], [cv2.IMWRITE_JPEG_QUALITY, 85])[1]),
        "DICOM, 12 bits": dicom_file(
            small.astype(np.uint16) * 16, BitsStored=12, WindowCenter=2048, WindowWidth=4096
        ),
    }  # fmt: skip
    with SandboxedDecoder(processes=1, seconds=10, max_bytes=1 << 26, options=STRICT) as decoder:
        start_seconds = measure_seconds(lambda: decoder.decode(contents["small JPEG"]))
        print(f"a process is ready after {start_seconds:.1f} s\n")
        print(f"{'file':<16}{'KB':>6}{'megapixels':>12}{'direct':>14}{'sandbox':>10}{'ratio':>7}")
        for name, content in contents.items():
            direct, sandboxed = [], []
            for _ in range(ROUNDS):
                direct.append(measure_seconds(partial(decode_image, content)))
                sandboxed.append(measure_seconds(partial(decoder.decode, content)))
            direct_ms, sandboxed_ms = min(direct) * 1000, min(sandboxed) * 1000
            megapixels = decode_image(content).grey.size / 1e6
            print(
                f"{name:<16}{len(content) / 1e3:>6.0f}{megapixels:>12.1f}"
                f"{direct_ms:>11.1f} ms{sandboxed_ms:>7.1f} ms{sandboxed_ms / direct_ms:>7.2f}"
            )


if __name__ == "__main__":
    main()
