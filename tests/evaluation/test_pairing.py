"""Two models are compared only on images that the other was not trained on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.errors import DataError
from cxr.evaluation.pairing import pair_predictions, split_with_predictions


def split_of(sides: dict[str, str], offset: float = 0.0, content: str = "") -> pd.DataFrame:
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


def test_on_the_same_split_nothing_is_excluded_or_missing() -> None:
    paired = pair_predictions(split_of(HERE, 0.001), split_of(HERE), same_dataset=True)
    assert paired.excluded == 0 and len(paired.missing) == 0 and paired.shortage() == ""
    assert len(paired.rows) == 160
    assert np.allclose(paired.rows["ours"] - paired.rows["theirs"], 0.001)


def test_images_and_patients_that_the_other_was_trained_on_are_excluded() -> None:
    there = {**HERE, "p60": "train", "p61": "validation", "p20": "train", "p21": "test"}
    paired = pair_predictions(split_of(HERE), split_of(there), same_dataset=True)
    assert paired.excluded == 6
    assert not set(paired.rows["group"]) & {"p60", "p61", "p20"}
    assert "p21" in set(paired.rows["group"]), "a validation image may come from the other's test images"


def test_another_image_of_a_training_patient_counts_only_where_patients_have_the_same_names() -> None:
    theirs = split_of({"p60": "train"}, content="other ")
    assert pair_predictions(split_of(HERE), theirs, same_dataset=True).excluded == 2
    assert pair_predictions(split_of(HERE), theirs, same_dataset=False).excluded == 0


def test_images_that_are_new_to_the_other_are_missing() -> None:
    there = {patient: side for patient, side in HERE.items() if patient not in {"p60", "p61"}}
    paired = pair_predictions(split_of(HERE), split_of(there), same_dataset=True)
    assert sorted(paired.missing["path"]) == ["p60-1.png", "p60-2.png", "p61-1.png", "p61-2.png"]
    full = paired.with_missing(pd.Series(0.25, index=paired.missing.index))
    assert len(full.missing) == 0
    ours, theirs = full.prediction_tables()
    assert theirs.set_index("path").loc["p60-1.png", "probability"] == 0.25
    assert ours["path"].tolist() == theirs["path"].tolist()


def test_too_few_images_are_reported() -> None:
    there = {**HERE, **patients(64, 100, "train")}
    assert "10 test images of NORMAL" in pair_predictions(split_of(HERE), split_of(there), same_dataset=True).shortage()


def test_predictions_of_another_split_are_refused() -> None:
    table = split_of(HERE)
    splits = table.drop(columns="probability")
    predictions = table[table["split"] != "train"][["path", "split", "probability"]]
    joined = split_with_predictions(splits, predictions)
    assert joined["probability"].notna().sum() == 160 and len(joined) == len(table)
    moved = splits.assign(split=splits["split"].replace({"test": "validation", "validation": "test"}))
    for wrong in (moved, splits[splits["path"] != "p99-1.png"]):
        with pytest.raises(DataError, match="expected the split that the model was evaluated on"):
            split_with_predictions(wrong, predictions)
