"""The weights minimise the validation loss, and only models of the same images are joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from cxr.errors import DataError, MissingInputError
from cxr.evaluation.calibration import apply_temperature, fit_temperature, pool_probabilities
from cxr.evaluation.ensemble import (
    ENSEMBLE_NAME,
    MAX_WEIGHT,
    EnsembleMembers,
    combine_training_facts,
    fit_weights,
    join_members,
    read_members,
)
from cxr.evaluation.metrics import log_loss
from cxr.models.metadata import Member, model_folders
from support.model_folders import CPU, GPU, make_metadata, write_models
from support.simulated_predictions import changed_predictions, evaluated, predictions


def labels_and_members(seed: int, skill: tuple[float, ...], images: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Target and calibrated probabilities of members that share a part of their errors."""
    generator = np.random.default_rng(seed)
    labels = (generator.random(images) < 0.6).astype(int)
    shared = generator.standard_normal(images)
    raw = [expit(strength * (2 * labels - 1) + shared + generator.standard_normal(images)) for strength in skill]
    return labels, np.stack([apply_temperature(p, fit_temperature(labels, p)) for p in raw])


@pytest.mark.parametrize("seed", range(20))
def test_the_pool_is_never_worse_on_validation_than_its_best_member(seed: int) -> None:
    skill = tuple(np.random.default_rng(seed).uniform(-0.5, 2, size=1 + seed % 5))
    labels, members = labels_and_members(seed, skill)
    weights = fit_weights(labels, members)
    best = min(float(log_loss(labels, member)) for member in members)
    assert float(log_loss(labels, pool_probabilities(members, weights))) <= best + 1e-9
    assert (weights >= 0).all() and (weights <= MAX_WEIGHT).all() and weights.any()


def test_the_weights_are_those_of_the_lowest_loss() -> None:
    labels, members = labels_and_members(0, (1.0, 1.2))
    weights = fit_weights(labels, members)
    assert (weights > 0.2).all(), "both members must count for this test to mean anything"
    lowest = float(log_loss(labels, pool_probabilities(members, weights)))
    grid = np.linspace(0, 2, 81)
    losses = [
        float(log_loss(labels, pool_probabilities(members, (first, second)))) for first in grid for second in grid
    ]
    assert lowest <= min(losses)
    assert min(losses) - lowest < 1e-3
    gain = min(float(log_loss(labels, member)) for member in members) - lowest
    assert gain > 0.01


def test_weights_go_with_their_members_and_come_out_the_same_each_time() -> None:
    labels, members = labels_and_members(3, (0.8, 1.2, 1.0))
    weights = fit_weights(labels, members)
    assert (fit_weights(labels, members) == weights).all()
    assert fit_weights(labels, members[::-1]) == pytest.approx(weights[::-1], abs=1e-4)


def test_a_member_that_is_wrong_gets_no_weight() -> None:
    labels, members = labels_and_members(1, (1.0, -1.0, 1.2))
    weights = fit_weights(labels, members)
    assert weights[1] == 0
    assert weights[0] > 0 and weights[2] > 0
    assert weights[[0, 2]] == pytest.approx(fit_weights(labels, members[[0, 2]]), abs=1e-4)


def test_copies_of_a_member_change_nothing() -> None:
    labels, members = labels_and_members(2, (1.0,))
    assert fit_weights(labels, np.repeat(members, 3, axis=0)).tolist() == [1, 0, 0]


def test_one_useless_member_is_still_used(caplog: pytest.LogCaptureFixture) -> None:
    labels, members = labels_and_members(4, (-1.0, -1.5))
    weights = fit_weights(labels, members)
    assert sorted(weights) == [0, 1]
    assert "no better on validation" in caplog.text


def test_perfect_separation_keeps_weights_finite(caplog: pytest.LogCaptureFixture) -> None:
    labels = np.arange(40) % 2
    sign = 2 * labels - 1
    # Each is wrong on different images, and confident where it is right: together they are right everywhere.
    first, second = np.where(np.arange(40) < 4, -0.5, 2) * sign, np.where(np.arange(40) > 35, -0.5, 2) * sign
    members = expit(np.stack([first, second]))
    weights = fit_weights(labels, members)
    assert weights.sum() == pytest.approx(1)
    assert (weights > 0.4).all()
    assert "separates validation perfectly" in caplog.text


def test_probabilities_of_0_and_1_stay_finite() -> None:
    labels = np.array([0, 1, 0, 1, 1, 0])
    members = np.array([[0.0, 1.0, 1.0, 1.0, 0.0, 0.0], [0.2, 0.7, 0.4, 0.8, 0.6, 0.7]])
    weights = fit_weights(labels, members)
    pooled = pool_probabilities(members, weights)
    assert np.isfinite(pooled).all() and np.isfinite(weights).all()
    assert pool_probabilities([[0.0], [1.0]], [1, 1]) == pytest.approx([0.5])


def test_validation_images_of_one_class_are_refused() -> None:
    with pytest.raises(DataError, match="both classes, received images=2, pneumonia=2"):
        fit_weights([1, 1], [[0.5, 0.6]])


def test_a_weight_of_1_alone_is_that_member() -> None:
    _, members = labels_and_members(0, (1.0, 1.0))
    assert pool_probabilities(members, [0, 1]) == pytest.approx(members[1])


def predictions_of(*names: str) -> dict[str, pd.DataFrame]:
    return {name: evaluated(predictions(seed=number), resamples=100).predictions for number, name in enumerate(names)}


def test_members_of_other_images_splits_and_kinds_are_named_together() -> None:
    tables = predictions_of("one", "two")
    phantom = make_metadata(
        "two", dataset={"name": "phantom", "kind": "phantom"}, data_digest="e" * 64, split_digest="6" * 64
    )
    with pytest.raises(DataError) as caught:
        join_members({"one": make_metadata("one"), "two": phantom}, tables)
    for part in (
        "same kind of data, received one=patients, two=phantom",
        "one=dddddddd, two=eeeeeeee",
        "two=70/15/15 by patient 66666666",
        "ensemble.members",
    ):
        assert part in str(caught.value)


def test_members_with_other_images_or_another_order_are_named() -> None:
    cards = {name: make_metadata(name) for name in ("one", "two")}
    tables = predictions_of("one", "two")
    with pytest.raises(DataError, match="images in one order, received one=the same, two=other"):
        join_members(cards, {**tables, "two": tables["two"].iloc[::-1].reset_index(drop=True)})
    with pytest.raises(DataError, match="two=other"):
        join_members(cards, {**tables, "two": tables["two"].iloc[:-1]})
    assert len(join_members(cards, tables).probabilities) == 2


def test_a_member_of_the_ensembles_own_name_is_refused() -> None:
    with pytest.raises(DataError, match=f"received a member {ENSEMBLE_NAME}"):
        join_members({ENSEMBLE_NAME: make_metadata(ENSEMBLE_NAME)}, predictions_of(ENSEMBLE_NAME))


def test_the_best_member_is_chosen_on_validation() -> None:
    tables = predictions_of("dull", "sharp")
    test = tables["sharp"]["split"] == "test"
    tables["dull"].loc[~test, "probability"] = 0.5
    tables["sharp"].loc[test, "probability"] = 0.5
    assert join_members({name: make_metadata(name) for name in tables}, tables).best_member() == "sharp"


def test_trained_on_a_gpu_means_every_member_with_a_weight() -> None:
    on_gpu, on_cpu = {"device": GPU, "seconds": 2.0}, {"device": CPU, "seconds": 1.5}
    assert combine_training_facts([on_gpu, on_gpu])["device"] == GPU
    mixed = combine_training_facts([on_gpu, on_cpu])
    assert mixed["device"]["kind"] == "cpu"
    assert mixed["device"]["name"] == "test GPU + test processor"
    assert mixed["seconds"] == 3.5
    assert combine_training_facts([on_gpu, {}])["device"]["kind"] == "cpu"
    assert combine_training_facts([on_gpu, {}])["seconds"] is None
    members = join_members(
        {"one": make_metadata("one", training=on_gpu), "two": make_metadata("two", training=on_cpu)},
        predictions_of("one", "two"),
    )
    metadata = members.ensemble_metadata(
        {"one": 0.7, "two": 0.0}, {"git_commit": "abc", "environment": "run.txt sha256:1"}
    )
    assert (metadata.git_commit, metadata.environment) == ("abc", "run.txt sha256:1")
    assert metadata.training["device"]["kind"] == "gpu"
    assert [member.weight for member in metadata.members] == [0.7, 0.0]
    assert metadata.weighted_members == (Member("one", 0.7, members.metadata["one"]),)


def test_an_evaluation_of_an_older_network_is_refused(tmp_path: Path) -> None:
    folders = write_models(tmp_path, ["three_block", "shallow"])
    make_metadata("shallow", training={"device": CPU, "seconds": 99.0}).write(folders.models / "shallow")
    with pytest.raises(DataError, match="older ones of shallow; run `cxr evaluate`"):
        read_members(model_folders(folders.models, folders.evaluations), [])


def test_missing_members_are_named(tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    with pytest.raises(MissingInputError, match=r"received none of: vgg16; run"):
        read_members(model_folders(folders.models, folders.evaluations), ["three_block", "vgg16"])
    (folders.models / "three_block" / "model.keras").unlink()
    with pytest.raises(MissingInputError, match=r"three_block/model\.keras"):
        read_members(model_folders(folders.models, folders.evaluations), [])
    with pytest.raises(MissingInputError, match=r"received none of: any"):
        read_members(model_folders(folders.models, tmp_path / "empty"), [])


def test_the_stress_test_pools_the_members_that_have_a_weight() -> None:
    tables = [predictions(80, seed=seed) for seed in range(3)]
    names = ["first", "second", "unused"]
    changed = [changed_predictions(table, seed=seed) for seed, table in enumerate(tables)]
    temperatures = (2.0, 0.5)
    members = EnsembleMembers(
        {name: make_metadata(name).with_calibration(2.0 if name == "first" else 0.5, 0.5, "rule") for name in names},
        {name: evaluated(table, resamples=100).predictions for name, table in zip(names, tables, strict=True)},
        dict(zip(names[:2], changed[:2], strict=True)),
    )
    weights = {"first": 0.7, "second": 0.4, "unused": 0.0}
    pooled = members.pooled_changed_predictions(weights)
    assert pooled is not None and pooled[["change", "path"]].equals(changed[0][["change", "path"]])
    calibrated = [
        apply_temperature(table["probability_raw"], temperature)
        for table, temperature in zip(changed[:2], temperatures, strict=True)
    ]
    assert pooled["probability_raw"].to_numpy() == pytest.approx(pool_probabilities(calibrated, [0.7, 0.4]))
    assert members.pooled_changed_predictions({**weights, "unused": 0.1}) is None


def test_members_tested_on_other_images_have_no_common_stress_test(caplog: pytest.LogCaptureFixture) -> None:
    table = predictions(80)
    members = EnsembleMembers(
        {name: make_metadata(name) for name in ("first", "second")},
        {name: evaluated(table, resamples=100).predictions for name in ("first", "second")},
        {"first": changed_predictions(table), "second": changed_predictions(table.iloc[::2])},
    )
    assert members.pooled_changed_predictions({"first": 1.0, "second": 1.0}) is None
    assert "not tested on the same changed images" in caplog.text
