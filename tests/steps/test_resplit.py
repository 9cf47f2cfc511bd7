"""The step resplit writes a safe split and its summary, or nothing."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pandas as pd
import pytest

from cxr.errors import DataError, ParameterError
from cxr.steps.resplit import Resplit


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """A manifest of 240 images of 120 patients in the published folders."""
    rows = []
    for number in range(240):
        subtype = ("normal", "bacteria", "virus")[number % 3]
        label = "NORMAL" if subtype == "normal" else "PNEUMONIA"
        patient = number // 6
        rows.append(
            {
                "path": f"{'test' if patient % 8 == 0 else 'train'}/{label}/{number}.jpeg",
                "sha256": f"sha-{number}",
                "label": label,
                "subtype": subtype,
                "patient": f"{subtype}-{patient}",
                "official_split": "test" if patient % 8 == 0 else "train",
                "duplicate_group": "",
                "status": "accepted",
            }
        )
    manifest = tmp_path / "manifest"
    manifest.mkdir()
    pd.DataFrame(rows).to_parquet(manifest / "manifest.parquet")
    return {"manifest": manifest, "splits": tmp_path / "splits"}


def test_the_split_and_its_summary_are_written(folders: dict[str, Path]) -> None:
    Resplit.build(folders).execute()
    splits = pd.read_parquet(folders["splits"] / "splits.parquet")
    result = json.loads((folders["splits"] / "achieved.json").read_text())
    assert len(splits) == 240
    assert result["protocol"] == "grouped"
    assert result["seed"] == 9
    assert result["ratios"] == [0.7, 0.15, 0.15]
    assert sum(result["images"].values()) == 240
    assert len(result["digest"]) == 64
    with (folders["splits"] / "achieved.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["images"]) for row in rows if row["subtype"] == "all") == 240


def test_every_parameter_reaches_the_split(folders: dict[str, Path]) -> None:
    values = {
        **folders,
        "protocol": "official",
        "ratios": [0.8, 0.1, 0.1],
        "seed": "3",
        "sample": {"NORMAL": 40, "PNEUMONIA": None},
    }
    Resplit.build(values).execute()
    splits = pd.read_parquet(folders["splits"] / "splits.parquet")
    assert set(splits.loc[splits["split"] == "test", "path"].str.split("/").str[0]) == {"test"}
    used = splits[splits["split"].isin(["train", "validation"])]
    assert (used["label"] == "NORMAL").sum() == 40
    assert json.loads((folders["splits"] / "achieved.json").read_text())["seed"] == 3


def test_two_runs_write_the_same_bytes(folders: dict[str, Path], tmp_path: Path) -> None:
    Resplit.build(folders).execute()
    Resplit.build({**folders, "splits": tmp_path / "again"}).execute()
    for name in ("splits.parquet", "achieved.json", "achieved.csv"):
        assert (folders["splits"] / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_a_split_without_both_classes_is_stopped_and_nothing_is_written(folders: dict[str, Path]) -> None:
    path = folders["manifest"] / "manifest.parquet"
    table = pd.read_parquet(path)
    table[table["label"] == "NORMAL"].to_parquet(path)
    with pytest.raises(DataError, match="both classes in train; absent"):
        Resplit.build(folders).execute()
    assert not folders["splits"].exists()


def test_wrong_parameters_are_reported_together() -> None:
    with pytest.raises(ParameterError) as caught:
        Resplit.build({"ratios": [0.7, 0.2, 0.2], "protocol": "random", "seed": -1, "sample": {"NORMAL": 0}})
    assert len(caught.value.problems) == 4
    assert "three positive shares with sum 1" in str(caught.value)
