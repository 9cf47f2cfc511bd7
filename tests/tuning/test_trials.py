"""A trial trains, leaves no files, and tells failures of training from errors of the program."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from optuna.exceptions import TrialPruned

from cxr.data.dataset import DatasetCard
from cxr.errors import ParameterError, TrainingError
from cxr.images.prepared import Prepared
from cxr.images.recipes import recipe_named
from cxr.training.session import Settings
from cxr.training.training_set import SplitData
from cxr.tuning.space import Choices, Range
from cxr.tuning.trials import check_networks, train_trial

RECIPE = recipe_named("s1_resize", size=24)
SETTINGS = Settings("shallow", epochs=2, batch_size=16)


@pytest.fixture(scope="module")
def data():
    """48 pictures with a brighter patch for pneumonia; the images of test are nowhere to be read."""
    images = np.random.default_rng(0).integers(0, 120, (48, 24, 24, 1), dtype=np.uint8)
    images[1::2, 5:13, 5:13] += 80
    names = [str(number) for number in range(64)]
    rows = {name: number for number, name in enumerate(names[:48])}
    index = pd.DataFrame({"path": list(rows), "row": list(rows.values())})
    frame = pd.DataFrame({"path": names, "label": ["NORMAL", "PNEUMONIA"] * 32,
                          "split": ["train"] * 32 + ["validation"] * 16 + ["test"] * 16})  # fmt: skip
    card = DatasetCard("drawn", "patients", "test", 64, 1, "none")
    return Prepared(images, index, RECIPE, rows), SplitData(frame, card, "d" * 64, "grouped", "5" * 64)


def test_trial_gives_its_figures_and_leaves_no_files(data, tmp_path):
    rows = []
    result = train_trial(SETTINGS, *data, tmp_path / "trial", rows.append)
    assert [row["epoch"] for row in rows] == [1, 2]
    assert result.best == min(row["val_loss"] for row in rows)
    assert not (tmp_path / "trial").exists()


def test_trial_that_is_ended_leaves_no_files(data, tmp_path):
    def behind(row):
        raise TrialPruned

    with pytest.raises(TrialPruned):
        train_trial(SETTINGS, *data, tmp_path / "trial", behind)
    assert not (tmp_path / "trial").exists()


def test_loss_that_is_no_number_is_a_failure_of_the_trial(data, tmp_path):
    with pytest.raises(TrainingError, match="finite loss"):
        train_trial(Settings("plain_cnn", optimizer="sgd", learning_rate=1e30), *data, tmp_path, lambda row: None)


def test_too_little_memory_is_a_failure_of_the_trial_and_other_errors_are_not(data, tmp_path):
    import tensorflow

    def full(row):
        raise tensorflow.errors.ResourceExhaustedError(None, None, "OOM when allocating tensor")

    def wrong(row):
        raise KeyError("a fault of the program")

    with pytest.raises(TrainingError, match="batch_size=16"):
        train_trial(SETTINGS, *data, tmp_path / "trial", full)
    with pytest.raises(KeyError):
        train_trial(SETTINGS, *data, tmp_path / "trial", wrong)


def test_recipes_and_layers_that_do_not_suit_the_network_are_all_named_before_the_first_trial(data):
    small = data[0]
    transfer = Settings("mobilenetv2", weights="imagenet", unfrozen_layers=2, fine_tune_epochs=1)
    grey = Prepared(small.images, small.index, recipe_named("s2_resize", size=48), {})
    colour = Prepared(small.images, small.index, recipe_named("s4_resize", size=48), {})
    with pytest.raises(ParameterError) as caught:
        check_networks(transfer, {"unfrozen_layers": Range(0, 1000)}, [grey, colour])
    for part in ("three channels", "recipe=s2_resize", "unfrozen_layers=1000", "unfrozen_layers=0"):
        assert part in str(caught.value), part
    check_networks(transfer, {"unfrozen_layers": Choices((2, 9))}, [colour])
