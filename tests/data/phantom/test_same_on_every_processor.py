"""The phantoms have the same bytes on every processor: measured with vector instructions off, and by the rules."""

from __future__ import annotations

import ast
import hashlib
from pathlib import Path

import pytest

import cxr.data.phantom
from cxr.data.phantom.dataset import draw_dataset, draw_image, plan_dataset
from support.folder_digests import folder_digests
from support.vector_instructions import run_without_vector_instructions

IMAGES, SEED = 20, 11
DIGESTS = {
    "normal": "cc35a505739bc2b3c68e7e4c77f2d71384c926c376f9a894c81c353179f250f9",
    "bacteria": "27e5757581e03d31dee665d17a70db15dacbca9cf3ebdbe6bd93e95973e3811a",
    "virus": "3a1a49e1a5a2b0d8277f450ec0e2bb9ce72e7c908d39df3a5b2168dd251fe557",
}
"""SHA-256 of the JPEG file of the first image of each subtype in a set of 600 images with the seed 0."""

DRAW = """
import sys
from pathlib import Path

from cxr.data.phantom.dataset import draw_dataset

draw_dataset(Path(sys.argv[1]), images=int(sys.argv[2]), seed=int(sys.argv[3]), workers=1)
"""

EXACT_NUMPY = {
    *("abs", "add", "clip", "divide", "floor", "maximum", "minimum", "multiply", "rint", "sqrt", "where"),
    *("arange", "array", "asarray", "ascontiguousarray", "column_stack", "concatenate", "empty_like", "full"),
    *("full_like", "linspace", "ones_like", "pad", "repeat", "split", "stack", "take", "tile", "vstack", "zeros"),
    *("zeros_like", "cumsum", "float32", "float64", "floating", "int32", "int64", "intp", "uint8", "uint64", "pi"),
    "random",
}
"""What IEEE 754 prescribes to the last bit, what only moves numbers, and the sum that is taken in order."""
EXACT_OPENCV = {
    *("fillPoly", "line", "LINE_AA"),  # polygons and lines of one pixel: integers
    *("distanceTransformWithLabels", "DIST_L2", "DIST_LABEL_PIXEL"),  # integers, see Canvas.rounded
    *("sepFilter2D", "CV_32F"),  # exact with whole numbers, see filters.py
    *("connectedComponentsWithStats", "CC_STAT_AREA", "cvtColor", "COLOR_GRAY2BGR"),
    *("imencode", "IMWRITE_JPEG_QUALITY"),  # libjpeg-turbo: all its paths of the accurate transform agree
    *("getNumThreads", "setNumThreads"),
}
EXACT_MATH = {"sqrt"}
EXACT_RANDOM = {"PCG64", "default_rng", "Generator"}
"""The bit generator, and for the plan of the files a generator that permutes and chooses."""


def test_switching_vector_instructions_off_changes_no_byte(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    draw_dataset(here, images=IMAGES, seed=SEED, workers=1)
    run_without_vector_instructions(DRAW, str(there), str(IMAGES), str(SEED))
    assert len(folder_digests(here)) == IMAGES + 2  # the images, their card and boxes.json
    assert folder_digests(there) == folder_digests(here)


@pytest.mark.parametrize("subtype", DIGESTS)
def test_images_have_the_bytes_that_they_had_on_other_processors(subtype: str) -> None:
    """Another processor, NumPy or OpenCV that draws differently fails here."""
    item = next(plan for plan in plan_dataset(600, seed=0) if plan.subtype == subtype)
    assert hashlib.sha256(draw_image(item, 0).data).hexdigest() == DIGESTS[subtype]


def is_whole_number(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, int)


def sources() -> list[Path]:
    return sorted(Path(str(cxr.data.phantom.__file__)).parent.glob("*.py"))


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.stem)
def test_the_drawing_uses_exact_operations_only(path: Path) -> None:
    """No sine, exponential, matrix product or floating-point filter: none of them is prescribed to the last bit."""
    allowed = {"np": EXACT_NUMPY, "np.random": EXACT_RANDOM, "cv2": EXACT_OPENCV, "math": EXACT_MATH}
    inexact = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in allowed:
            if node.attr not in allowed[ast.unparse(node.value)]:
                inexact.append(f"{node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.MatMult):
            inexact.append(f"{node.lineno}: @")
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow) and not is_whole_number(node.left):
            inexact.append(f"{node.lineno}: **")
    assert inexact == []
