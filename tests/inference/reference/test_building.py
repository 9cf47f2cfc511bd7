"""The images that a reference is made of are drawn so that new images leave nearly all of them in the draw."""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
import pytest

from cxr.inference.reference.building import draw_images


def table(images: int) -> pd.DataFrame:
    """A split of images of different content, a third of them for validation."""
    names = [f"{number:05d}.jpeg" for number in np.random.default_rng(0).permutation(images)]
    return pd.DataFrame(
        {
            "path": names,
            "sha256": [hashlib.sha256(name.encode()).hexdigest() for name in names],
            "split": ["validation" if int(name[:5]) % 3 == 0 else "train" for name in names],
        }
    )


def drawn(rows: pd.DataFrame, seed: int = 0) -> set[str]:
    return set(draw_images(rows, "train", 1_000, seed)["sha256"])


def test_a_small_split_is_taken_whole_and_a_large_one_in_the_order_of_its_paths() -> None:
    rows = table(3_000)
    assert len(draw_images(rows, "validation", 1_000, 0)) == 1_000
    assert draw_images(rows, "validation", 2_000, 0)["path"].tolist() == sorted(
        rows.loc[rows["split"] == "validation", "path"]
    )
    paths = draw_images(rows, "train", 1_000, 0)["path"].tolist()
    assert len(paths) == 1_000
    assert paths == sorted(paths)


@pytest.mark.parametrize("new", [30, 300])
def test_new_images_replace_as_many_drawn_ones_as_they_are_drawn(new: int) -> None:
    rows = table(3_000 + new)
    is_new = rows["path"] >= "03000"
    before, after = drawn(rows[~is_new]), drawn(rows)
    share = new / (3_000 + new)
    assert after - before == after & set(rows.loc[is_new, "sha256"])
    assert 0 < len(after - before) < 2 * share * 1_000 + 10


def test_names_do_not_decide_and_the_seed_does() -> None:
    rows = table(3_000)
    renamed = rows.assign(path=[f"x{path}" for path in rows["path"][::-1]])
    assert drawn(renamed) == drawn(rows)
    other = drawn(rows, seed=1)
    assert 400 < len(other & drawn(rows)) < 600
