"""A trial trains, leaves no files, and distinguishes failures of training from errors of the program."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from optuna.exceptions import TrialPruned

from cxr.data.dataset import DatasetCard
from cxr.errors import ParameterError, TrainingError
from cxr.images.prepared import PreparedImages
from cxr.images.recipes import recipe_named
from cxr.training.split_data import SplitData
from cxr.tuning.space import Choices, Range
from cxr.tuning.trials import check_networks, train_trial
from support.training_settings import training_settings

RECIPE = recipe_named("s1_resize", size=24)
SETTINGS = training_settings("shallow", epochs=2, batch_size=16)


@pytest.fixture(scope="module")
def data():
    """48 images with a brighter patch for pneumonia; the test images are not among the prepared ones."""
    images = np.random.default_rng(0).integers(0, 120, (48, 24, 24, 1), dtype=np.uint8)
    images[1::2, 5:13, 5:13] += 80
    names = [str(number) for number in range(64)]
    rows = {name: number for number, name in enumerate(names[:48])}
    index = pd.DataFrame({"path": list(rows), "row": list(rows.values())})
    frame = pd.DataFrame({"path": names, "label": ["NORMAL", "PNEUMONIA"] * 32,
                          "split": ["train"] * 32 + ["validation"] * 16 + ["test"] * 16})  # fmt: skip
    dataset = DatasetCard("drawn", "patients", "test", 64, 1, "none")
    return PreparedImages(images, index, RECIPE, rows), SplitData(frame, dataset, "d" * 64, "grouped", "5" * 64)


def test_a_trial_reports_its_metrics_and_leaves_no_files(data, tmp_path):
    rows = []
    result = train_trial(SETTINGS, *data, tmp_path / "trial", rows.append)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert result.best == min(row["val_loss"] for row in rows)
    assert not (tmp_path / "trial").exists()


def test_a_trial_that_is_ended_early_leaves_no_files(data, tmp_path):
    def prune(row):
        raise TrialPruned

    with pytest.raises(TrialPruned):
        train_trial(SETTINGS, *data, tmp_path / "trial", prune)
    assert not (tmp_path / "trial").exists()


def test_a_loss_that_is_not_finite_fails_the_trial(data, tmp_path):
    with pytest.raises(TrainingError, match="finite loss"):
        train_trial(
            training_settings("shallow", optimizer="sgd", learning_rate=1e30), *data, tmp_path, lambda row: None
        )


def test_too_little_memory_fails_the_trial_and_other_errors_are_raised(data, tmp_path):
    import tensorflow

    def run_out_of_memory(row):
        raise tensorflow.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    def raise_key_error(row):
        raise KeyError("a fault of the program")

    with pytest.raises(TrainingError, match="batch_size=16"):
        train_trial(SETTINGS, *data, tmp_path / "trial", run_out_of_memory)
    with pytest.raises(KeyError):
        train_trial(SETTINGS, *data, tmp_path / "trial", raise_key_error)


def test_recipes_and_layers_that_do_not_suit_the_network_are_all_named_before_the_first_trial(data):
    images = data[0]
    transfer = training_settings("mobilenetv2", weights="imagenet", unfrozen_layers=2, fine_tune_epochs=1)
    grey = PreparedImages(images.images, images.index, recipe_named("s2_resize", size=48), {})
    colour = PreparedImages(images.images, images.index, recipe_named("s4_resize", size=48), {})
    with pytest.raises(ParameterError) as caught:
        check_networks(transfer, {"unfrozen_layers": Range(0, 1000)}, [grey, colour])
    for part in ("three channels", "recipe=s2_resize", "unfrozen_layers=1000", "unfrozen_layers=0"):
        assert part in str(caught.value), part
    check_networks(transfer, {"unfrozen_layers": Choices((2, 9))}, [colour])
