"""Two models are compared only on images that the other has not learned from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.errors import DataError
from cxr.evaluation.pairing import judged_images, pair

SIDES = ("train", "validation", "test")


def judged(sides: dict[str, str], offset: float = 0.0, content: str = "") -> pd.DataFrame:
    """Two images per patient; the patient's name decides label and probability."""
    rows = []
    for number, (patient, side) in enumerate(sides.items()):
        for image in (1, 2):
            probability = np.nan if side == "train" else (number % 100) / 100 + offset
            label = (NORMAL, PNEUMONIA)[number % 2]
            rows.append((f"{content}{patient}-{image}", f"{patient}-{image}.png", patient, label, side, probability))
    return pd.DataFrame(rows, columns=["sha256", "path", "group", "label", "split", "probability"])


def patients(start: int, stop: int, side: str) -> dict[str, str]:
    return {f"p{number}": side for number in range(start, stop)}


HERE = {**patients(0, 20, "train"), **patients(20, 60, "validation"), **patients(60, 100, "test")}


def test_on_the_same_split_nothing_is_set_aside_and_nobody_is_asked() -> None:
    found = pair(judged(HERE, 0.001), judged(HERE), same_dataset=True)
    assert found.set_aside == 0 and len(found.unknown) == 0 and found.too_few() == ""
    assert len(found.rows) == 160
    assert np.allclose(found.rows["ours"] - found.rows["theirs"], 0.001)


def test_images_and_patients_that_the_other_has_learned_from_are_set_aside() -> None:
    there = {**HERE, "p60": "train", "p61": "validation", "p20": "train", "p21": "test"}
    found = pair(judged(HERE), judged(there), same_dataset=True)
    assert found.set_aside == 6
    assert not set(found.rows["group"]) & {"p60", "p61", "p20"}
    assert "p21" in set(found.rows["group"]), "a validation image may come from the other's test images"


def test_another_image_of_a_learned_patient_counts_only_where_patients_are_named_alike() -> None:
    theirs = judged({"p60": "train"}, content="other ")
    assert pair(judged(HERE), theirs, same_dataset=True).set_aside == 2
    assert pair(judged(HERE), theirs, same_dataset=False).set_aside == 0


def test_images_that_are_new_to_the_other_are_asked_for() -> None:
    there = {patient: side for patient, side in HERE.items() if patient not in {"p60", "p61"}}
    found = pair(judged(HERE), judged(there), same_dataset=True)
    assert sorted(found.unknown["path"]) == ["p60-1.png", "p60-2.png", "p61-1.png", "p61-2.png"]
    full = found.answered(pd.Series(0.25, index=found.unknown.index))
    assert len(full.unknown) == 0
    ours, theirs = full.tables()
    assert theirs.set_index("path").loc["p60-1.png", "probability"] == 0.25
    assert ours["path"].tolist() == theirs["path"].tolist()


def test_too_few_images_make_no_comparison() -> None:
    there = {**HERE, **patients(64, 100, "train")}
    assert "10 test images of NORMAL" in pair(judged(HERE), judged(there), same_dataset=True).too_few()


def test_predictions_of_another_split_are_refused() -> None:
    table = judged(HERE)
    splits = table.drop(columns="probability")
    predictions = table[table["split"] != "train"][["path", "split", "probability"]]
    kept = judged_images(splits, predictions)
    assert kept["probability"].notna().sum() == 160 and len(kept) == len(table)
    moved = splits.assign(split=splits["split"].replace({"test": "validation", "validation": "test"}))
    for wrong in (moved, splits[splits["path"] != "p99-1.png"]):
        with pytest.raises(DataError, match="expected the split that the model was judged on"):
            judged_images(wrong, predictions)
