"""Images that arrive later cost the work for these images alone, and lead to the same outputs as all at once."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from cxr.images.recipes import RECIPES
from cxr.steps.preprocess import Preprocess
from cxr.steps.reference import DescribeReference
from cxr.steps.resplit import Resplit
from cxr.steps.validate import Validate

NEW = 3
COMPARED = (
    "manifest/manifest.parquet",
    "data_report/exploration.html",
    "splits/splits.parquet",
    "prepared/images.npy",
    "prepared/index.parquet",
    "reference/reference.npz",
    "reference/report.json",
)


@dataclass(frozen=True)
class Runs:
    """Outputs of all images at once, and of a part and then the rest with the cache of the part.

    Attributes:
        at_once: folder of the outputs.
        grown: the same of the second run.
        packs: packs of the cache that the second run added.
    """

    at_once: Path
    grown: Path
    packs: list[Path]


def run(data: Path, outputs: Path, cache: Path) -> None:
    """Run the steps that look at every image."""
    splits = {"splits": outputs / "splits"}
    manifest, common = {"manifest": outputs / "manifest"}, {"data": data, "cache": cache}
    working = {name: outputs / name for name in ("baseline", "rejected")}
    Validate.build(
        {**common, **manifest, **working, "report": outputs / "data_report", "tracking_uri": "",
         "severity": {"complete": "off"}}
    ).execute()  # fmt: skip
    Resplit.build({**manifest, **splits, "max_deviation": 1}).execute()
    Preprocess.build({**common, **manifest, "recipe": "s2_resize", "prepared": outputs / "prepared"}).execute()
    DescribeReference.build({**common, **splits, "reference": outputs / "reference"}).execute()


@pytest.fixture(scope="module")
def runs(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    root = tmp_path_factory.mktemp("growth")
    data, cache = root / "data", root / "cache"
    shutil.copytree(phantom_folder, data)
    new = sorted(data.rglob("*.jpeg"))[:NEW]
    for path in new:
        path.rename(root / path.name)
    run(data, root / "part", cache)
    before = set(cache.rglob("*.pack"))
    for path in new:
        (root / path.name).rename(path)
    run(data, root / "grown", cache)
    run(data, root / "at_once", root / "other_cache")
    return Runs(root / "at_once", root / "grown", sorted(set(cache.rglob("*.pack")) - before))


@pytest.mark.parametrize("name", COMPARED)
def test_the_outputs_are_those_of_all_images_at_once(runs: Runs, name: str) -> None:
    assert (runs.grown / name).read_bytes() == (runs.at_once / name).read_bytes()


def test_only_new_images_are_worked_on(runs: Runs) -> None:
    added = {pack.parent.name.partition("-")[0]: pack.stat().st_size for pack in runs.packs}
    assert set(added) <= {"sha256", "facts", "thumbnails", "s2_resize", "features"}
    recipe = RECIPES["s2_resize"]
    table_row, end = 40, 16
    assert added["s2_resize"] == NEW * (recipe.size**2 * recipe.planes + table_row) + end
    assert 0 < added["facts"] < NEW * 1000
