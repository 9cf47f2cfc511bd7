"""Images that arrive later cost the work for these images alone, and lead to the same outputs as all at once.

As on a cluster, each step is a process of its own. After new images have arrived, the data are at another path, and the
volume with the cache is mounted elsewhere.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import pytest

from support.forked_processes import COMMAND, run_forked

IMAGES, NEW = 100, 1
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
    """Outputs of all images at once, and of a part and then of all with the cache of the part.

    Attributes:
        at_once: folder of the outputs.
        grown: the same of the run with all images after that of a part.
        from_nothing: kind of result to the number of images that were worked on, where all came at once.
        with_new: the same where the new images came later.
        data: all images.
        cache: what is kept of them.
    """

    at_once: Path
    grown: Path
    from_nothing: dict[str, int]
    with_new: dict[str, int]
    data: Path
    cache: Path


def run(data: Path, outputs: Path, cache: Path) -> dict[str, int]:
    """Run the steps that look at every image, each in its own process; gives the images that each worked on."""
    before = kept_results(cache)
    folders = {name: outputs / name for name in ("manifest", "splits")}
    manifest, splits = {"manifest": folders["manifest"]}, {"splits": folders["splits"]}
    common = {"data": data, "cache": cache}
    working = {name: outputs / name for name in ("baseline", "rejected")}
    start("validate", {**common, **manifest, **working, "report": outputs / "data_report", "tracking_uri": "",
                       "severity": '{complete: "off"}'})  # fmt: skip
    start("resplit", {**folders, "max_deviation": 1})
    start("preprocess", {**common, **manifest, "recipe": "s2_resize", "prepared": outputs / "prepared"})
    start("reference", {**common, **splits, "films": FILMS, "reference": outputs / "reference"})
    return {kind: number - before.get(kind, 0) for kind, number in kept_results(cache).items()}


def start(step: str, values: Mapping[str, object]) -> None:
    words = [str(word) for name, value in values.items() for word in (f"--{name}", value)]
    done = run_forked(COMMAND, step, *words)
    assert done.returncode == 0, done.stderr


def kept_results(cache: Path) -> dict[str, int]:
    """Kinds of results to their number, from the ends of the packs."""
    numbers: dict[str, int] = {}
    for pack in cache.rglob("*.pack"):
        kind = pack.parent.name.partition("-")[0]
        numbers[kind] = numbers.get(kind, 0) + struct.unpack_from("<Q", pack.read_bytes()[-16:])[0]
    return numbers


def draw_images(phantoms: Path, data: Path) -> None:
    """Copy the phantoms, and mirror some of them for other patients."""
    shutil.copytree(phantoms, data)
    paths = sorted(data.rglob("*.jpeg"))
    for number, path in enumerate(paths[: IMAGES - len(paths)]):
        name = f"IM-9{number:03}-0001.jpeg" if path.parent.name == "NORMAL" else f"person9{number:03}_virus_1.jpeg"
        cv2.imwrite(str(path.with_name(name)), cv2.flip(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), 1))
    (data / "boxes.json").unlink()


@pytest.fixture(scope="module")
def runs(phantom_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    root = tmp_path_factory.mktemp("growth")
    task, volume, outputs = root / "task", root / "volume", root / "outputs"
    draw_images(phantom_folder, task / "data")
    new = sorted((task / "data" / "train").rglob("*.jpeg"))[:NEW]
    for path in new:
        path.rename(root / path.name)
    run(task / "data", outputs / "part", volume)
    for path in new:
        (root / path.name).rename(path)
    images, mounted = root / "next_task" / "images", root / "mounted" / "cache"
    shutil.copytree(task / "data", images)
    shutil.copytree(volume, mounted)
    with_new = run(images, outputs / "grown", mounted)
    from_nothing = run(task / "data", outputs / "at_once", root / "other_volume")
    return Runs(outputs / "at_once", outputs / "grown", from_nothing, with_new, images, mounted)


@pytest.mark.parametrize("name", COMPARED)
def test_the_outputs_are_those_of_all_images_at_once(runs: Runs, name: str) -> None:
    assert (runs.grown / name).read_bytes() == (runs.at_once / name).read_bytes()


def test_one_percent_more_images_is_one_percent_of_the_work(runs: Runs) -> None:
    with_new, from_nothing = dict(runs.with_new), dict(runs.from_nothing)
    del with_new["sha256"]  # files that were copied just now are hashed again
    assert with_new.pop("features") <= NEW < from_nothing["features"]  # those of them that are drawn
    assert with_new.pop("thumbnails", 0) <= 2 * NEW  # a new image and one that it is near to
    assert with_new == {"facts": NEW, "s2_resize": NEW}
    assert from_nothing["facts"] == from_nothing["s2_resize"] == IMAGES


@pytest.mark.exhaustive  # above, one new image is all the work
def test_the_next_run_with_the_same_images_works_on_none(runs: Runs, tmp_path: Path) -> None:
    data, cache = tmp_path / "data", tmp_path / "cache"
    shutil.copytree(runs.data, data)
    shutil.copytree(runs.cache, cache)
    worked_on = run(data, tmp_path, cache)
    del worked_on["sha256"]
    assert set(worked_on.values()) == {0}
    for name in COMPARED:
        assert (tmp_path / name).read_bytes() == (runs.at_once / name).read_bytes()
