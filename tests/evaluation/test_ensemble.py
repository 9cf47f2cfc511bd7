"""The weights are the best that validation knows, and only models that belong together are joined."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from cxr.errors import DataError, MissingInputError
from cxr.evaluation.calibration import apply_temperature, fit_temperature, pool
from cxr.evaluation.ensemble import HEAVIEST, NAME, evidence, fit_weights, join, read_members
from cxr.evaluation.evaluate import evaluate
from cxr.evaluation.metrics import log_loss
from cxr.models.metadata import Member, model_folders
from support.judged_models import predictions
from support.model_folders import CPU, GPU, card, write_models


def answers(seed: int, skill: tuple[float, ...], images: int = 300) -> tuple[np.ndarray, np.ndarray]:
    """Target and calibrated probabilities of members that share a part of their errors."""
    generator = np.random.default_rng(seed)
    sick = (generator.random(images) < 0.6).astype(int)
    shared = generator.standard_normal(images)
    raw = [expit(one * (2 * sick - 1) + shared + generator.standard_normal(images)) for one in skill]
    return sick, np.stack([apply_temperature(p, fit_temperature(sick, p)) for p in raw])


@pytest.mark.parametrize("seed", range(20))
def test_the_pool_is_never_worse_on_validation_than_its_best_member(seed: int) -> None:
    skill = tuple(np.random.default_rng(seed).uniform(-0.5, 2, size=1 + seed % 5))
    sick, members = answers(seed, skill)
    weights = fit_weights(sick, members)
    best = min(float(log_loss(sick, one)) for one in members)
    assert float(log_loss(sick, pool(members, weights))) <= best + 1e-9
    assert (weights >= 0).all() and (weights <= HEAVIEST).all() and weights.any()


def test_the_weights_are_those_of_the_lowest_loss() -> None:
    sick, members = answers(0, (1.0, 1.2))
    weights = fit_weights(sick, members)
    assert (weights > 0.2).all(), "both members must count for this test to mean anything"
    lowest = float(log_loss(sick, pool(members, weights)))
    grid = np.linspace(0, 2, 81)
    losses = [float(log_loss(sick, pool(members, (one, other)))) for one in grid for other in grid]
    assert lowest <= min(losses)
    assert min(losses) - lowest < 1e-3
    gain = min(float(log_loss(sick, one)) for one in members) - lowest
    assert gain > 0.01


def test_weights_go_with_their_members_and_come_out_the_same_each_time() -> None:
    sick, members = answers(3, (0.8, 1.2, 1.0))
    weights = fit_weights(sick, members)
    assert (fit_weights(sick, members) == weights).all()
    assert fit_weights(sick, members[::-1]) == pytest.approx(weights[::-1], abs=1e-4)


def test_a_member_that_is_wrong_gets_no_weight() -> None:
    sick, members = answers(1, (1.0, -1.0, 1.2))
    weights = fit_weights(sick, members)
    assert weights[1] == 0
    assert weights[0] > 0 and weights[2] > 0
    assert weights[[0, 2]] == pytest.approx(fit_weights(sick, members[[0, 2]]), abs=1e-4)


def test_copies_of_a_member_change_nothing() -> None:
    sick, members = answers(2, (1.0,))
    assert fit_weights(sick, np.repeat(members, 3, axis=0)).tolist() == [1, 0, 0]


def test_a_member_without_any_use_still_answers(caplog: pytest.LogCaptureFixture) -> None:
    sick, members = answers(4, (-1.0, -1.5))
    weights = fit_weights(sick, members)
    assert sorted(weights) == [0, 1]
    assert "no better on validation" in caplog.text


def test_perfect_separation_makes_no_endless_weights(caplog: pytest.LogCaptureFixture) -> None:
    sick = np.arange(40) % 2
    sign = 2 * sick - 1
    # Each is wrong on other images, and sure where it is right: together they are right everywhere.
    first, second = np.where(np.arange(40) < 4, -0.5, 2) * sign, np.where(np.arange(40) > 35, -0.5, 2) * sign
    members = expit(np.stack([first, second]))
    weights = fit_weights(sick, members)
    assert weights.sum() == pytest.approx(1)
    assert (weights > 0.4).all()
    assert "separates validation perfectly" in caplog.text


def test_probabilities_of_0_and_1_stay_finite() -> None:
    sick = np.array([0, 1, 0, 1, 1, 0])
    members = np.array([[0.0, 1.0, 1.0, 1.0, 0.0, 0.0], [0.2, 0.7, 0.4, 0.8, 0.6, 0.7]])
    weights = fit_weights(sick, members)
    pooled = pool(members, weights)
    assert np.isfinite(pooled).all() and np.isfinite(weights).all()
    assert pool([[0.0], [1.0]], [1, 1]) == pytest.approx([0.5])


def test_validation_images_of_one_class_are_refused() -> None:
    with pytest.raises(DataError, match="both classes, received images=2, pneumonia=2"):
        fit_weights([1, 1], [[0.5, 0.6]])


def test_a_weight_of_1_alone_is_that_member() -> None:
    _, members = answers(0, (1.0, 1.0))
    assert pool(members, [0, 1]) == pytest.approx(members[1])


def judged(*names: str) -> dict[str, pd.DataFrame]:
    return {name: evaluate(predictions(seed=number), resamples=100).predictions for number, name in enumerate(names)}


def test_members_of_other_images_splits_and_kinds_are_named_together() -> None:
    tables = judged("one", "two")
    phantom = card("two", dataset={"name": "phantom", "kind": "phantom"}, data_digest="e" * 64, split_digest="6" * 64)
    with pytest.raises(DataError) as caught:
        join({"one": card("one"), "two": phantom}, tables)
    for words in (
        "same kind of data, received one=patients, two=phantom",
        "one=dddddddd, two=eeeeeeee",
        "two=70/15/15 by patient 66666666",
        "ensemble.members",
    ):
        assert words in str(caught.value)


def test_members_with_other_images_or_another_order_are_named() -> None:
    cards = {name: card(name) for name in ("one", "two")}
    tables = judged("one", "two")
    with pytest.raises(DataError, match="images in one order, received one=the same, two=other"):
        join(cards, {**tables, "two": tables["two"].iloc[::-1].reset_index(drop=True)})
    with pytest.raises(DataError, match="two=other"):
        join(cards, {**tables, "two": tables["two"].iloc[:-1]})
    assert len(join(cards, tables).probabilities) == 2


def test_a_member_of_the_ensembles_own_name_is_refused() -> None:
    with pytest.raises(DataError, match=f"received a member {NAME}"):
        join({NAME: card(NAME)}, judged(NAME))


def test_the_best_member_is_chosen_on_validation() -> None:
    tables = judged("dull", "sharp")
    test = tables["sharp"]["split"] == "test"
    tables["dull"].loc[~test, "probability"] = 0.5
    tables["sharp"].loc[test, "probability"] = 0.5
    assert join({name: card(name) for name in tables}, tables).best() == "sharp"


def test_trained_on_a_gpu_means_every_member_with_a_weight() -> None:
    on_gpu, on_cpu = {"device": GPU, "seconds": 2.0}, {"device": CPU, "seconds": 1.5}
    assert evidence([on_gpu, on_gpu])["device"] == GPU
    mixed = evidence([on_gpu, on_cpu])
    assert mixed["device"]["kind"] == "cpu"
    assert mixed["device"]["name"] == "test GPU + test processor"
    assert mixed["seconds"] == 3.5
    assert evidence([on_gpu, {}])["device"]["kind"] == "cpu"
    assert evidence([on_gpu, {}])["seconds"] is None
    members = join({"one": card("one", training=on_gpu), "two": card("two", training=on_cpu)}, judged("one", "two"))
    alone = members.card({"one": 0.7, "two": 0.0}, {"git_commit": "abc", "environment": "run.txt sha256:1"})
    assert (alone.git_commit, alone.environment) == ("abc", "run.txt sha256:1")
    assert alone.training["device"]["kind"] == "gpu"
    assert [member.weight for member in alone.members] == [0.7, 0.0]
    assert alone.pooled == (Member("one", 0.7, members.cards["one"]),)


def test_an_evaluation_of_an_older_network_is_refused(tmp_path: Path) -> None:
    folders = write_models(tmp_path, ["three_block", "shallow"])
    card("shallow", training={"device": CPU, "seconds": 99.0}).write(folders.models / "shallow")
    with pytest.raises(DataError, match="older ones of shallow; run `cxr evaluate`"):
        read_members(model_folders(folders.models, folders.evaluations))


def test_missing_members_are_named(tmp_path: Path) -> None:
    folders = write_models(tmp_path)
    with pytest.raises(MissingInputError, match=r"received none of: vgg16; run"):
        read_members(model_folders(folders.models, folders.evaluations), ["three_block", "vgg16"])
    (folders.models / "three_block" / "model.keras").unlink()
    with pytest.raises(MissingInputError, match=r"three_block/model\.keras"):
        read_members(model_folders(folders.models, folders.evaluations))
    with pytest.raises(MissingInputError, match=r"received none of: any"):
        read_members(model_folders(folders.models, tmp_path / "empty"))
