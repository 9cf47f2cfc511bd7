"""Near duplicates: time and memory to find the near hashes among many, and what an image and a near pair cost.

Random hashes, of which one in a hundred is a copy of another with up to eight bits changed; all planted copies must be
found. How alike hashes of radiographs are is shown by the public set if it is beside the repository, else by phantoms:
``python benchmarks/duplicates.py [FOLDER or TAR]``. Each size is measured in a process of its own. Memory is what its
resident memory grows by, hashes included, in MiB. Time is the processor's.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from per_image import NEAR_DISTANCE, WHOLE, core_seconds, line, unpacked

from cxr.data.manifest.duplicates import find_near_duplicates
from cxr.data.manifest.hash_neighbours import HASH_BITS, count_comparisons, divide_hash, near_pairs, read_codes
from cxr.data.phantom.dataset import draw_dataset
from cxr.images.decoding import decode_grey
from cxr.images.perceptual_hash import perceptual_hash

SIZES = (10_000, 100_000, 1_000_000)
COPIES = 100
"""One hash in so many is a copy."""


def main() -> None:
    """Print a line per size, then the costs that docs/scale.md is computed from."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", nargs="?", type=Path, default=WHOLE if WHOLE.exists() else None)
    source = parser.parse_args().source
    print(f"{'hashes':>10}{'core seconds':>16}{'MiB':>12}{'near pairs':>14}{'all pairs would be':>22}")
    seconds = 0.0
    for count in SIZES:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            seconds, peak, near = pool.submit(measure, count).result()
        print(f"{count:>10,}{seconds:>16.2f}{peak:>12.0f}{near:>14,}{count * (count - 1) // 2:>22,}", flush=True)
    print()
    comparisons = count_comparisons(SIZES[-1], divide_hash(SIZES[-1], NEAR_DISTANCE))
    line("validate, compare two hashes", 1e9 * seconds / comparisons, "ns")
    with tempfile.TemporaryDirectory() as scratch:
        if source is None:
            data = Path(scratch) / "data"
            draw_dataset(data, images=400, seed=0)
        else:
            data = unpacked(source, Path(scratch) / "data")
        of_images(data)


def measure(count: int) -> tuple[float, float, int]:
    """Find the near hashes among random ones.

    Args:
        count: number of hashes.

    Returns:
        Core seconds, growth of the largest memory of this process in MiB, and the number of near pairs.
    """
    before = peak_memory()
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 2**64, count, dtype=np.uint64)
    copies = count // COPIES
    codes[:copies] = codes[-copies:]
    for _ in range(NEAR_DISTANCE):
        codes[:copies] ^= np.uint64(1) << generator.integers(0, 64, copies, dtype=np.uint64)
    pairs = []
    seconds = core_seconds(lambda: pairs.extend(near_pairs(codes, NEAR_DISTANCE)))
    all_pairs = np.concatenate(pairs)
    planted = all_pairs[(all_pairs[:, 0] < copies) & (all_pairs[:, 1] == all_pairs[:, 0] + count - copies)]
    assert len(planted) == copies, f"{copies} copies were planted, {len(planted)} found"
    return seconds, peak_memory() - before, len(all_pairs)


def peak_memory() -> float:
    """Largest resident memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def of_images(data: Path) -> None:
    """Print how often hashes of radiographs are near, and what a closer look at a pair costs.

    Args:
        data: folder of images of many patients.
    """
    images = [decode_grey(path.read_bytes()) for path in sorted(data.rglob("*.jpeg"))]
    hashes = [perceptual_hash(image) for image in images]
    codes = read_codes(hashes)
    pairs = len(codes) * (len(codes) - 1) / 2
    near = sum(map(len, near_pairs(codes, NEAR_DISTANCE)))
    line(f"validate, near pairs among {len(codes):,} films", 1e6 * near / pairs, "of a million")
    # All pairs count as near, so that the search for them and the thumbnails hardly count.
    find = partial(find_near_duplicates, codes, images.__getitem__, distance=HASH_BITS, workers=1)
    line("validate, compare a near pair", 1e9 * core_seconds(find) / pairs, "ns")


if __name__ == "__main__":
    main()
