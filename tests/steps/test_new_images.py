"""Images that arrive later cost the work for these images alone, and lead to the same outputs as all at once."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from cxr.steps.preprocess import Preprocess
from cxr.steps.reference import DescribeReference
from cxr.steps.resplit import Resplit
from cxr.steps.validate import Validate

NEW = 3
FILMS = 20
"""Most images of a split in the reference: fewer than there are for training."""
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
        worked_on: kind of result to the images that the second run worked on.
        root: folder with the images, ``data``, and what is kept of all of them, ``cache``.
    """

    at_once: Path
    grown: Path
    worked_on: dict[str, int]
    root: Path


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
    DescribeReference.build({**common, **splits, "films": FILMS, "reference": outputs / "reference"}).execute()


@pytest.fixture(scope="module")
def runs(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    root = tmp_path_factory.mktemp("growth")
    data, cache = root / "data", root / "cache"
    shutil.copytree(phantom_folder, data)
    new = sorted(data.rglob("*.jpeg"))[:NEW]
    for path in new:
        path.rename(root / path.name)
    run(data, root / "part", cache)
    before = kept_results(cache)
    for path in new:
        (root / path.name).rename(path)
    run(data, root / "grown", cache)
    after = kept_results(cache)
    run(data, root / "at_once", root / "other_cache")
    return Runs(root / "at_once", root / "grown", {kind: after[kind] - before.get(kind, 0) for kind in after}, root)


def kept_results(cache: Path) -> dict[str, int]:
    """Kinds of results to their number, from the ends of the packs."""
    numbers: dict[str, int] = {}
    for pack in cache.rglob("*.pack"):
        kind = pack.parent.name.partition("-")[0]
        numbers[kind] = numbers.get(kind, 0) + struct.unpack_from("<Q", pack.read_bytes()[-16:])[0]
    return numbers


@pytest.mark.parametrize("name", COMPARED)
def test_the_outputs_are_those_of_all_images_at_once(runs: Runs, name: str) -> None:
    assert (runs.grown / name).read_bytes() == (runs.at_once / name).read_bytes()


def test_only_new_images_are_worked_on(runs: Runs) -> None:
    worked_on = dict(runs.worked_on)
    del worked_on["sha256"]  # a file that was written just now is hashed again by the next step
    assert worked_on.pop("features") <= NEW  # those of them that are drawn
    assert worked_on.pop("thumbnails", 0) <= 2 * NEW  # a new image and one that it is near to
    assert worked_on == {"facts": NEW, "s2_resize": NEW}


def test_another_process_with_a_copy_of_the_images_works_on_none(runs: Runs, tmp_path: Path) -> None:
    """As in the next run on a cluster: the task copies the images, and has the volume of the last run."""
    data, cache, prepared = tmp_path / "data", tmp_path / "cache", tmp_path / "prepared"
    shutil.copytree(runs.root / "data", data)
    shutil.copytree(runs.root / "cache", cache)
    before = kept_results(cache)
    cxr = Path(sys.executable).with_name("cxr")
    manifest = runs.at_once / "manifest"
    words = (cxr, "preprocess", "--recipe", "s2_resize", "--data", data, "--manifest", manifest)
    subprocess.run([*words, "--cache", cache, "--prepared", prepared], check=True, cwd=tmp_path, timeout=120)
    after = kept_results(cache)
    assert (prepared / "images.npy").read_bytes() == (runs.at_once / "prepared" / "images.npy").read_bytes()
    assert after["s2_resize"] == before["s2_resize"]
