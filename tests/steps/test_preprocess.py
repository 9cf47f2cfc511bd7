"""The step ``preprocess`` prepares accepted images with its recipe and values."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from cxr.errors import ImageError, ParameterError
from cxr.images.prepared import PreparedImages
from cxr.images.recipes import RECIPES, Recipe
from cxr.steps.cache_fields import CachingStep
from cxr.steps.preprocess import Preprocess


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Six images, one of them quarantined, with their manifest."""
    data, manifest = tmp_path / "data", tmp_path / "manifest"
    data.mkdir()
    manifest.mkdir()
    generator = np.random.default_rng(0)
    rows = []
    for number in range(6):
        content = cv2.imencode(".jpg", generator.integers(0, 256, (80, 90)).astype(np.uint8))[1].tobytes()
        (data / f"{number}.jpeg").write_bytes(content)
        rows.append((f"{number}.jpeg", hashlib.sha256(content).hexdigest(), 90, 80, "accepted"))
    table = pd.DataFrame(rows, columns=["path", "sha256", "width", "height", "status"])
    table.loc[2, "status"] = "quarantined"
    table.to_parquet(manifest / "manifest.parquet")
    return {"data": data, "manifest": manifest, "prepared": tmp_path / "prepared", "cache": tmp_path / "cache"}


def test_it_prepares_the_accepted_images(folders: dict[str, Path]) -> None:
    Preprocess.build({**folders, "recipe": "s1_resize"}).execute()
    prepared = PreparedImages.open(folders["prepared"])
    assert prepared.index["path"].tolist() == ["0.jpeg", "1.jpeg", "3.jpeg", "4.jpeg", "5.jpeg"]
    assert prepared.images.shape == (5, 64, 64, 1)
    assert prepared.recipe == RECIPES["s1_resize"]


def test_single_values_replace_those_of_the_recipe(folders: dict[str, Path]) -> None:
    Preprocess.build({**folders, "recipe": "s4_resize", "size": "96", "canny": "true"}).execute()
    recipe = json.loads((folders["prepared"] / "recipe.json").read_text())
    assert (recipe["name"], recipe["size"], recipe["canny"]) == ("s4_resize", 96, True)
    assert PreparedImages.open(folders["prepared"]).images.shape == (5, 96, 96, 2)


def test_a_broken_image_leaves_no_output(folders: dict[str, Path]) -> None:
    broken = folders["data"] / "4.jpeg"
    broken.write_bytes(broken.read_bytes()[:500])
    table = pd.read_parquet(folders["manifest"] / "manifest.parquet")
    table.loc[4, "sha256"] = hashlib.sha256(broken.read_bytes()).hexdigest()
    table.to_parquet(folders["manifest"] / "manifest.parquet")
    with pytest.raises(ImageError, match=r"4\.jpeg"):
        Preprocess.build(folders).execute()
    assert sorted(path.name for path in folders["prepared"].parent.iterdir()) == ["cache", "data", "manifest"]


def test_the_default_output_folder_is_named_after_the_recipe() -> None:
    assert Preprocess.build({"recipe": "s4_resize"}).prepared == Path("artifacts/prepared/s4_resize")
    assert Preprocess.build({}).prepared == Path("artifacts/prepared/s2_resize")
    assert Preprocess.build({"recipe": "s4_resize", "prepared": "here"}).prepared == Path("here")


def test_the_step_offers_every_recipe_and_every_value_of_one() -> None:
    assert {Preprocess.build({"recipe": name}).recipe for name in RECIPES} == set(RECIPES)
    values = {field.name for field in fields(Recipe)} - {"name", "system"}
    others = {"recipe", "workers", "shard", "shards", *CachingStep.parameters()}
    assert set(Preprocess.parameters()) - others == values


def test_wrong_values_are_reported_together() -> None:
    with pytest.raises(ParameterError) as caught:
        Preprocess.build({"recipe": "s9", "size": 2, "wokers": 3})
    text = str(caught.value)
    assert len(caught.value.problems) == 3
    assert all(value in text for value in ("recipe='s9'", "size=2", "wokers=3"))
