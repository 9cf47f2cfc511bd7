"""What a search may try: choices and ranges of parameters, checked against the bounds of the step they belong to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from cxr.models.networks import NETWORKS, option_problems
from cxr.training.parameter_checks import COMBINED_PARAMETERS, combination_problems

Scalar = str | int | float | bool | None
DIGITS = 4
"""Significant digits of a number drawn from a range: enough for training, and still readable."""
RANGE_KEYS = ("low", "high", "log", "step")


@dataclass(frozen=True)
class Choices:
    """Values without an order, one of which is taken."""

    values: tuple[Scalar, ...]

    def distribution(self) -> BaseDistribution:
        """Convert to Optuna's distribution."""
        return CategoricalDistribution(self.values)

    def to_value(self, drawn: Any) -> Scalar:
        """Convert a value that Optuna drew to the value to train with; here they are the same."""
        value: Scalar = drawn
        return value

    def contains(self, value: Any) -> bool:
        """Tell whether a value is one of the choices."""
        return value in self.values

    def extremes(self) -> tuple[Scalar, ...]:
        """List the values to check: if they are valid, all values are. Here all choices."""
        return self.values

    def to_parameter(self) -> Any:
        """Convert to the form of ``params.yaml``: a list."""
        return list(self.values)


@dataclass(frozen=True)
class Range:
    """Numbers from low to high, both included.

    Attributes:
        low: smallest.
        high: largest.
        log: whether each power of ten is equally likely.
        step: distance between the numbers; None for any number, or 1 for whole ones.
    """

    low: float
    high: float
    log: bool = False
    step: float | None = None

    @property
    def whole(self) -> bool:
        """Whether only whole numbers belong to it."""
        return isinstance(self.low, int)

    def distribution(self) -> BaseDistribution:
        """Convert to Optuna's distribution."""
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def to_value(self, drawn: Any) -> Scalar:
        """Convert a number that Optuna drew to the number to train with.

        Args:
            drawn: the number.

        Returns:
            The number, rounded to :data:`DIGITS` significant digits if it is not whole, and kept inside the range.
        """
        if self.whole:
            return int(drawn)
        return min(max(float(f"{drawn:.{DIGITS}g}"), self.low), self.high)

    def contains(self, value: Any) -> bool:
        """Tell whether a value lies in the range, and on its steps."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        steps = (value - self.low) / (self.step or 1)
        on_grid = (self.step is None and not self.whole) or abs(steps - round(steps)) < 1e-9
        return self.low <= value <= self.high and on_grid

    def extremes(self) -> tuple[Scalar, ...]:
        """List the values to check: if they are valid, all values are. Here low and high."""
        return self.low, self.high

    def to_parameter(self) -> Any:
        """Convert to the form of ``params.yaml``: a mapping."""
        return {"low": self.low, "high": self.high, "log": self.log, "step": self.step}


Space = dict[str, Choices | Range]


def read_space(entries: Mapping[str, Any], fields: Mapping[str, FieldInfo]) -> tuple[Space, list[str]]:
    """Read a search space.

    Args:
        entries: parameter to a list of choices, or to a mapping with low, high and, optionally, log or step.
        fields: the parameters that may be searched, with their types and bounds.

    Returns:
        The space without the wrong entries, and one sentence per problem.
    """
    space: Space = {}
    problems = []
    for name, entry in entries.items():
        key = f"space.{name}"
        if name not in fields:
            problems.append(f"unknown parameter {key}={entry!r}; expected one of: {', '.join(fields)}")
            continue
        info = fields[name]
        annotated: Any = Annotated[info.annotation, info]
        adapter: TypeAdapter[Any] = TypeAdapter(annotated)
        if isinstance(entry, list) and entry:
            values, entry_problems = _convert(adapter, {f"{key}[{index}]": value for index, value in enumerate(entry)})
            if len({repr(value) for value in values}) < len(values):
                entry_problems.append(f"expected {key} to name each value once, received {key}={entry!r}")
            if not entry_problems:
                space[name] = Choices(tuple(values))
        elif isinstance(entry, Mapping) and {"low", "high"} <= set(entry) <= set(RANGE_KEYS):
            bounds, entry_problems = _convert(adapter, {f"{key}.{end}": entry[end] for end in ("low", "high")})
            entry_problems = entry_problems or _range_problems(key, bounds[0], bounds[1], entry)
            if not entry_problems:
                space[name] = Range(bounds[0], bounds[1], entry.get("log", False), entry.get("step"))
        else:
            entry_problems = [
                f"expected {key} to be a list of values, or a mapping with low, high and, if wanted, log or step, "
                f"received {key}={entry!r}"
            ]
        problems.extend(entry_problems)
    return space, problems


def space_parameters(space: Space) -> dict[str, Any]:
    """Convert a space to the form of ``params.yaml``.

    Args:
        space: the space.

    Returns:
        Parameter to a list of choices, or to a mapping.
    """
    return {name: dimension.to_parameter() for name, dimension in space.items()}


def values_to_check(space: Space, name: str, base_value: Any) -> tuple[Any, ...]:
    """List the values of a parameter that must be valid so that every trial is.

    Args:
        space: the space.
        name: the parameter.
        base_value: its value where it is not searched.

    Returns:
        The extremes of the space, or the one value.
    """
    return space[name].extremes() if name in space else (base_value,)


def start_values(space: Space, base: Mapping[str, Any]) -> dict[str, Any]:
    """Choose the values of the first trial: those of the model, where the space contains them.

    Args:
        space: the space.
        base: the model's own values.

    Returns:
        Parameter to value.
    """
    return {name: base[name] for name, dimension in space.items() if dimension.contains(base[name])}


def network_problems(space: Space, base: Mapping[str, Any]) -> list[str]:
    """Find options that a network does not have, and parameters whose search would have no effect.

    Args:
        space: the space.
        base: values of all parameters that are not searched.

    Returns:
        One sentence per problem.
    """
    if base["architecture"] not in NETWORKS:
        return []  # reported where the model's own values are checked
    checked = [values_to_check(space, name, base[name]) for name in ("dropout", "batch_normalisation", "weights")]
    problems = [problem for values in product(*checked) for problem in option_problems(base["architecture"], *values)]
    if "unfrozen_layers" in space:
        if set(values_to_check(space, "weights", base["weights"])) == {"none"}:
            problems.append(
                f"expected a network with pretrained weights for space.unfrozen_layers, received "
                f"architecture={base['architecture']}, weights=none; leave unfrozen_layers out"
            )
        elif not base["fine_tune_epochs"]:
            problems.append(
                "expected fine_tune_epochs of at least 1 for space.unfrozen_layers, received fine_tune_epochs=0; "
                "without a second phase no layer is unfrozen"
            )
    return [*dict.fromkeys(problems)]


def combination_problems_in(space: Space, base: Mapping[str, Any]) -> list[str]:
    """Find combinations that the space contains and a training would refuse.

    Args:
        space: the space.
        base: values of all parameters that are not searched.

    Returns:
        One sentence per problem.
    """
    checked = [values_to_check(space, name, base[name]) for name in COMBINED_PARAMETERS]
    problems = [
        problem
        for values in product(*checked)
        for problem in combination_problems(dict(zip(COMBINED_PARAMETERS, values, strict=True)))
    ]
    return [*dict.fromkeys(problems)]


def _range_problems(key: str, low: Any, high: Any, entry: Mapping[str, Any]) -> list[str]:
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in (low, high)):
        return [f"expected {key} to be a list, since it is not a number, received {key}={dict(entry)!r}"]
    log, step = entry.get("log", False), entry.get("step")
    problems = []
    if not low < high:
        problems.append(f"expected {key}.low to be below {key}.high, received low={low}, high={high}")
    if not isinstance(log, bool):
        problems.append(f"expected {key}.log to be true or false, received {key}.log={log!r}")
    elif log and low <= 0:
        problems.append(f"expected {key}.low above 0 for log: true, received {key}.low={low}")
    if step is not None:
        whole = isinstance(low, int)
        if isinstance(step, bool) or not isinstance(step, int if whole else int | float) or step <= 0:
            number = "whole number" if whole else "number"
            problems.append(f"expected {key}.step to be a {number} above 0, received {key}.step={step!r}")
        elif log:
            problems.append(f"expected {key} to have log or step, received both; leave one out")
    return problems


def _convert(adapter: TypeAdapter[Any], values: Mapping[str, Any]) -> tuple[list[Any], list[str]]:
    """Convert values to the parameter's type, and report those out of its bounds."""
    converted: list[Any] = []
    problems = []
    for key, value in values.items():
        try:
            converted.append(adapter.validate_python(value))
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            problems.append(f"expected {key} to be {message}, received {key}={value!r}")
    return converted, problems


def searchable_fields(fields: Mapping[str, FieldInfo], excluded: Collection[str]) -> dict[str, FieldInfo]:
    """Select the parameters that may be searched.

    Args:
        fields: fields of the step.
        excluded: names of those that may not.

    Returns:
        The other fields, in order.
    """
    return {name: info for name, info in fields.items() if name not in excluded}
