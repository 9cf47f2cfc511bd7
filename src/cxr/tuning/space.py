"""What a search may try: choices and ranges of parameters, checked against the bounds of the step they belong to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Annotated, Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from cxr.models.networks import BUILDERS, check_options

Scalar = str | int | float | bool | None
DIGITS = 4
"""Significant digits that a number drawn from a range keeps: enough for training, and few enough to be read."""
RANGE = ("low", "high", "log", "step")


@dataclass(frozen=True)
class Choices:
    """Values without an order, one of which is taken."""

    values: tuple[Scalar, ...]

    def distribution(self) -> BaseDistribution:
        """Give it to Optuna.

        Returns:
            Optuna's distribution.
        """
        return CategoricalDistribution(self.values)

    def value(self, drawn: Any) -> Scalar:
        """Value to train with.

        Args:
            drawn: what Optuna drew.

        Returns:
            The same.
        """
        found: Scalar = drawn
        return found

    def holds(self, value: Any) -> bool:
        """Tell whether a value may be tried.

        Args:
            value: any value.

        Returns:
            Whether it is one of the choices.
        """
        return value in self.values

    def ends(self) -> tuple[Scalar, ...]:
        """Values whose being in order means that all are.

        Returns:
            All choices.
        """
        return self.values

    def plain(self) -> Any:
        """Write it as in ``params.yaml``.

        Returns:
            A list.
        """
        return list(self.values)


@dataclass(frozen=True)
class Range:
    """Numbers between two ends, which both belong to it.

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
        """Give it to Optuna.

        Returns:
            Optuna's distribution.
        """
        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log, step=int(self.step or 1))
        return FloatDistribution(self.low, self.high, log=self.log, step=self.step)

    def value(self, drawn: Any) -> Scalar:
        """Value to train with.

        Args:
            drawn: what Optuna drew.

        Returns:
            The number, of :data:`DIGITS` digits if it is not whole.
        """
        if self.whole:
            return int(drawn)
        return min(max(float(f"{drawn:.{DIGITS}g}"), self.low), self.high)

    def holds(self, value: Any) -> bool:
        """Tell whether a value may be tried.

        Args:
            value: any value.

        Returns:
            Whether it lies in the range.
        """
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        steps = (value - self.low) / (self.step or 1)
        on_grid = (self.step is None and not self.whole) or abs(steps - round(steps)) < 1e-9
        return self.low <= value <= self.high and on_grid

    def ends(self) -> tuple[Scalar, ...]:
        """Values whose being in order means that all are.

        Returns:
            Low and high.
        """
        return self.low, self.high

    def plain(self) -> Any:
        """Write it as in ``params.yaml``.

        Returns:
            A mapping.
        """
        return {"low": self.low, "high": self.high, "log": self.log, "step": self.step}


Space = dict[str, Choices | Range]


def read_space(given: Mapping[str, Any], fields: Mapping[str, FieldInfo]) -> tuple[Space, list[str]]:
    """Read a search space.

    Args:
        given: parameter to a list of choices, or to a mapping with low, high and, if wanted, log or step.
        fields: the parameters that may be searched, with their types and bounds.

    Returns:
        The space without what is wrong, and one sentence per problem.
    """
    space: Space = {}
    problems = []
    for name, entry in given.items():
        where = f"space.{name}"
        if name not in fields:
            problems.append(f"unknown parameter {where}={entry!r}; expected one of: {', '.join(fields)}")
            continue
        info = fields[name]
        annotated: Any = Annotated[info.annotation, info]
        adapter: TypeAdapter[Any] = TypeAdapter(annotated)
        if isinstance(entry, list) and entry:
            values, wrong = _checked(adapter, {f"{where}[{place}]": value for place, value in enumerate(entry)})
            if len({repr(value) for value in values}) < len(values):
                wrong.append(f"expected {where} to name each value once, received {where}={entry!r}")
            if not wrong:
                space[name] = Choices(tuple(values))
        elif isinstance(entry, Mapping) and {"low", "high"} <= set(entry) <= set(RANGE):
            ends, wrong = _checked(adapter, {f"{where}.{end}": entry[end] for end in ("low", "high")})
            wrong = wrong or _range_problems(where, ends[0], ends[1], entry)
            if not wrong:
                space[name] = Range(ends[0], ends[1], entry.get("log", False), entry.get("step"))
        else:
            wrong = [
                f"expected {where} to be a list of values, or a mapping with low, high and, if wanted, log or step, "
                f"received {where}={entry!r}"
            ]
        problems.extend(wrong)
    return space, problems


def network_problems(space: Space, base: Mapping[str, Any]) -> list[str]:
    """Find what a network does not have, or what would be searched without effect.

    Args:
        space: the space.
        base: values of all parameters that are not searched; those of a training.

    Returns:
        One sentence per problem.
    """
    if base["architecture"] not in BUILDERS:
        return []  # said where the model's own values are checked

    def tried(name: str) -> tuple[Any, ...]:
        return space[name].ends() if name in space else (base[name],)

    options = product(tried("batch_normalisation"), tried("weights"))
    problems = [one for pair in options for one in check_options(base["architecture"], *pair)]
    if "unfrozen_layers" in space:
        if set(tried("weights")) == {"none"}:
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


def _range_problems(where: str, low: Any, high: Any, entry: Mapping[str, Any]) -> list[str]:
    if any(isinstance(end, bool) or not isinstance(end, int | float) for end in (low, high)):
        return [f"expected {where} to be a list, since it is not a number, received {where}={dict(entry)!r}"]
    log, step = entry.get("log", False), entry.get("step")
    problems = []
    if not low < high:
        problems.append(f"expected {where}.low to be below {where}.high, received low={low}, high={high}")
    if not isinstance(log, bool):
        problems.append(f"expected {where}.log to be true or false, received {where}.log={log!r}")
    elif log and low <= 0:
        problems.append(f"expected {where}.low above 0 for log: true, received {where}.low={low}")
    if step is not None:
        whole = isinstance(low, int)
        if isinstance(step, bool) or not isinstance(step, int if whole else int | float) or step <= 0:
            number = "whole number" if whole else "number"
            problems.append(f"expected {where}.step to be a {number} above 0, received {where}.step={step!r}")
        elif log:
            problems.append(f"expected {where} to have log or step, received both; leave one out")
    return problems


def _checked(adapter: TypeAdapter[Any], values: Mapping[str, Any]) -> tuple[list[Any], list[str]]:
    """Convert values to the parameter's type, and say which are out of its bounds."""
    converted: list[Any] = []
    problems = []
    for where, value in values.items():
        try:
            converted.append(adapter.validate_python(value))
        except ValidationError as error:
            message = error.errors()[0]["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
            problems.append(f"expected {where} to be {message}, received {where}={value!r}")
    return converted, problems


def searchable(fields: Mapping[str, FieldInfo], without: Collection[str]) -> dict[str, FieldInfo]:
    """Choose the parameters that may be searched.

    Args:
        fields: fields of the step.
        without: names of those that may not.

    Returns:
        The others, in order.
    """
    return {name: info for name, info in fields.items() if name not in without}
