"""A search space is read with all its problems at once, against the bounds of the step that trains."""

from __future__ import annotations

import pytest

from cxr.steps.train import Train
from cxr.tuning.space import Choices, Range, network_problems, read_space, searchable_fields

FIELDS = searchable_fields(Train.model_fields, {"model", *Train.artifacts()})


def base(**changes):
    return {
        "architecture": "three_block",
        "dropout": None,
        "batch_normalisation": None,
        "weights": "none",
        "fine_tune_epochs": 0,
        **changes,
    }


def test_choices_and_ranges_are_read_in_the_type_of_their_parameter():
    space, problems = read_space(
        {
            "optimizer": ["adam", "nadam"],
            "learning_rate": {"low": "1e-4", "high": 1, "log": True},  # YAML reads 1e-4 as text
            "batch_size": {"low": 8, "high": 64, "step": 8},
            "dropout": {"low": 0.2, "high": 0.5},
            "batch_normalisation": [True, None],
        },
        FIELDS,
    )
    assert problems == []
    assert space == {
        "optimizer": Choices(("adam", "nadam")),
        "learning_rate": Range(1e-4, 1.0, log=True),
        "batch_size": Range(8, 64, step=8),
        "dropout": Range(0.2, 0.5),
        "batch_normalisation": Choices((True, None)),
    }
    assert [name for name, dimension in space.items() if isinstance(dimension, Range) and dimension.whole] == [
        "batch_size"
    ]


@pytest.mark.parametrize(
    ("name", "entry", "expected"),
    [
        ("dropot", [0.1], "unknown parameter space.dropot"),
        ("model", ["shallow"], "unknown parameter space.model"),
        ("optimizer", ["adam", "adagrad"], "space.optimizer[1]='adagrad'"),
        ("optimizer", ["adam", "adam"], "each value once"),
        ("optimizer", [], "to be a list of values"),
        ("optimizer", "adam", "to be a list of values"),
        ("optimizer", {"low": "adam", "high": "sgd"}, "not a number"),
        ("learning_rate", {"low": 1e-4}, "with low, high"),
        ("learning_rate", {"low": 1e-4, "high": 1e-2, "lgo": True}, "with low, high"),
        ("learning_rate", {"low": 0, "high": 5}, "space.learning_rate.low=0"),
        ("learning_rate", {"low": 0, "high": 5}, "space.learning_rate.high=5"),
        ("learning_rate", {"low": 0.1, "high": 0.01}, "low=0.1, high=0.01"),
        ("learning_rate", {"low": 0.01, "high": 0.1, "log": True, "step": 0.01}, "log or step"),
        ("dropout", {"low": 0.0, "high": 0.5, "log": True}, "above 0 for log"),
        ("batch_size", {"low": 8, "high": 64, "step": 0.5}, "whole number above 0"),
        ("dropout", {"low": 0.0, "high": 0.5, "step": -0.1}, "number above 0"),
    ],
)
def test_wrong_entries_are_named_with_what_was_received(name, entry, expected):
    space, problems = read_space({name: entry, "balance": ["none", "oversample"]}, FIELDS)
    assert any(expected in problem for problem in problems), problems
    assert list(space) == ["balance"]


def test_drawn_numbers_have_few_digits_and_stay_inside():
    rate = Range(1.23544e-4, 1e-2, log=True)
    assert rate.to_value(0.00123456789) == 0.001235
    assert rate.to_value(1.23544e-4) == 1.23544e-4  # 0.0001235 would be outside
    assert Range(2, 9).to_value(7) == 7


@pytest.mark.parametrize(
    ("dimension", "value", "inside"),
    [
        (Range(0.2, 0.5), 0.5, True),
        (Range(0.2, 0.5), 0.51, False),
        (Range(0.2, 0.5), None, False),
        (Range(0.1, 0.5, step=0.1), 0.3, True),
        (Range(0.1, 0.5, step=0.1), 0.35, False),
        (Range(8, 64, step=8), 24, True),
        (Range(8, 64, step=8), 25, False),
        (Choices(("adam", None)), None, True),
        (Choices(("adam", None)), "sgd", False),
    ],
)
def test_a_value_is_inside_or_not(dimension, value, inside):
    assert dimension.contains(value) is inside


def test_options_that_the_network_does_not_have_are_refused():
    space = {"batch_normalisation": Choices((True, None))}
    assert network_problems(space, base()) == []
    (problem,) = network_problems(space, base(architecture="residual_separable"))
    assert "batch_normalisation=null for residual_separable, which has no such option" in problem


def test_layers_are_unfrozen_only_where_there_are_pretrained_weights_and_a_second_phase():
    space = {"unfrozen_layers": Range(1, 8)}
    assert "pretrained" in network_problems(space, base())[0]
    transfer = base(architecture="vgg16", weights="imagenet")
    assert "fine_tune_epochs" in network_problems(space, transfer)[0]
    assert network_problems(space, {**transfer, "fine_tune_epochs": 3}) == []
