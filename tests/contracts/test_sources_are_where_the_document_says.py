"""docs/sources.md keeps its word: files, names, values and parameter counts that it gives are those of the project."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
import shlex
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from cxr.cli.main import parse_step
from cxr.results.reported_results import SOURCE_SYSTEMS
from cxr.steps import STEPS, load_step

DOCUMENT = "docs/sources.md"
SYSTEMS = ("S0", "S1", "S2", "S3", "S4")
COLUMNS = ["The source says", "Here", "Why, where it differs"]
FILE = re.compile(r"[\w.-]+(/[\w.-]+)*(/|\.(py|md|yaml|json|toml))")
COUNTED = re.compile(r"`(\w+)` at (\d+)x(\d+)x(\d+) has ([\d,]+) parameters(?:, ([\d,]+) trainable)?")
OPEN = object()
"""Value of a field or argument without a default."""


@pytest.fixture(scope="module")
def text(repository):
    return (repository / DOCUMENT).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def params(repository):
    """The parameters without further trainings of a network, such as other seeds: the page is about the first."""
    values = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    for part in ("models", "transfer"):
        values[part] = {name: entry for name, entry in values[part].items() if entry["architecture"] == name}
    return values


def spans(text):
    return re.findall(r"`([^`\n]+)`", text)


def kind(span, params):
    """What a span in backticks names, so that none goes unchecked."""
    if span in params["models"] or span in params["transfer"]:
        return "network"
    if span.split()[0] in ("cxr", "dvc"):
        return "command"
    if span.startswith("cxr."):
        return "name"
    if FILE.fullmatch(span):
        return "file"
    if span.partition(".")[0] in params:
        return "parameter"
    return "unknown"


def of_kind(text, params, expected_kind):
    matching_spans = [span for span in spans(text) if kind(span, params) == expected_kind]
    assert matching_spans, f"no {expected_kind} in {DOCUMENT}: the pattern of this test is wrong"
    return matching_spans


def section(text, heading):
    return re.split(r"^## ", text.partition(f"\n## {heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def split_value(span):
    """Name and stated value of ``name = value``; OPEN if there is none."""
    name, equals, value = span.partition(" = ")
    return name, plain(yaml.safe_load(value)) if equals else OPEN


def plain(value):
    """The same for a value from Python and one from YAML."""
    if isinstance(value, Mapping):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    return value


def resolve(name: str) -> Any:
    """Follow a dotted name through modules, classes, fields, arguments and keys."""
    words = re.findall(r'\["[^"]+"\]|\w+', name)
    module, rest = import_module(words[0]), words[1:]
    while rest and inspect.ismodule(module):
        path = f"{module.__name__}.{rest[0]}"
        try:
            module = import_module(path)
        except ModuleNotFoundError as error:
            if error.name != path:
                raise
            break
        rest = rest[1:]
    value: Any = module
    for word in rest:
        value = member(value, word)
    return value


def member(owner: Any, word: str) -> Any:
    if word.startswith("["):
        return owner[word[2:-2]]
    if isinstance(owner, type) and issubclass(owner, BaseModel) and word in owner.model_fields:
        field = owner.model_fields[word]
        return OPEN if field.is_required() else field.get_default(call_default_factory=True)
    if isinstance(owner, type) and dataclasses.is_dataclass(owner):
        for field in dataclasses.fields(owner):
            if field.name == word:
                return OPEN if field.default is dataclasses.MISSING else field.default
    if inspect.isfunction(owner):
        default = inspect.signature(owner).parameters[word].default
        return OPEN if default is inspect.Parameter.empty else default
    return getattr(owner, word)


def parameter(params, name):
    value = params
    for word in name.split("."):
        value = value[word]
    return plain(value)


def test_every_span_in_backticks_is_of_a_kind_that_is_checked(text, params):
    assert not [span for span in spans(text) if kind(span, params) == "unknown"]
    assert text.count("`") == 2 * len(spans(text))


def test_files_exist(text, params, repository):
    assert not [path for path in of_kind(text, params, "file") if not (repository / path).exists()]


def test_names_of_the_code_exist_and_have_the_stated_values(text, params):
    wrong = []
    for span in of_kind(text, params, "name"):
        name, stated = split_value(span)
        try:
            value = resolve(name)
        except (ImportError, AttributeError, KeyError, TypeError) as error:
            wrong.append(f"{span}: {error!r}")
            continue
        if stated is not OPEN and plain(value) != stated:
            wrong.append(f"{span}: it is {value!r}")
    assert not wrong


def test_parameters_exist_and_have_the_stated_values(text, params):
    wrong = []
    for span in of_kind(text, params, "parameter"):
        name, stated = split_value(span)
        try:
            value = parameter(params, name)
        except (KeyError, TypeError):
            wrong.append(f"{span}: not in params.yaml")
            continue
        if stated is not OPEN and value != stated:
            wrong.append(f"{span}: it is {value!r}")
    assert not wrong


def test_a_parameter_of_a_network_is_stated_in_the_section_of_its_system(text, params):
    for name, entry in {**params["models"], **params["transfer"]}.items():
        homes = [system for system in SYSTEMS if re.search(rf"`(models|transfer)\.{name}\.", section(text, system))]
        assert homes == [entry["system"]] if "system" in entry else not homes, name


def test_every_value_of_a_sources_network_is_told(text, params):
    """A value that params.yaml gives a network of a source either stands in the source or is said to be ours."""
    assumed = {"system", "architecture", "recipe", "phantom_epochs", "phantom_train_images"}
    parameters_told = {split_value(span)[0] for span in of_kind(text, params, "parameter")}
    untold = {
        f"{part}.{name}.{key}"
        for part in ("models", "transfer")
        for name, entry in params[part].items()
        for key in set(entry) - assumed
        if entry.get("system") in SYSTEMS
    } - parameters_told
    assert not untold


def test_commands_are_accepted(text, params, repository):
    for span in of_kind(text, params, "command"):
        words = shlex.split(span)
        if words[0] == "cxr":
            assert words[1] in STEPS, span
            parse_step(load_step(words[1]), words[2:])
        else:
            assert words[:2] == ["dvc", "repro"], span
            assert all((repository / word).exists() for word in words[2:]), span


def test_every_system_has_a_section_with_a_table_of_three_columns(text):
    assert re.findall(r"^## (S\d)$", text, re.MULTILINE) == list(SYSTEMS)
    for system in SYSTEMS:
        rows = [line for line in section(text, system).splitlines() if line.startswith("|")]
        cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
        assert cells[0] == COLUMNS, system
        assert len(cells) > 10, system
        assert all(len(row) == 3 and row[0] and row[1] for row in cells), system


def test_parameter_counts_are_those_of_the_networks(text, params):
    from cxr.models.networks import build_network

    stated = COUNTED.findall(text)
    systems = {name for part in ("models", "transfer") for name, entry in params[part].items() if "system" in entry}
    assert {name for name, *_ in stated} == systems
    counts = set()
    for name, height, width, channels, all_of_them, trainable in stated:
        network = build_network(name, (int(height), int(width), int(channels)))
        counts.add(f"{network.count_params():,}")
        assert f"{network.count_params():,}" == all_of_them, name
        if trainable:
            assert f"{sum(math.prod(weight.shape) for weight in network.trainable_weights):,}" == trainable, name
    assert set(re.findall(r"([\d,]+) parameters", text)) == counts


def test_own_figures_of_each_system_are_those_that_results_are_held_against(text):
    for figure in SOURCE_SYSTEMS:
        there = section(text, figure.title[:2])
        for measure, value in figure.measures.items():
            assert f"{100 * value:.2f} %" in there or f"{100 * value:g} %" in there or f"{value:g}" in there, (
                f"{figure.title}: {measure}"
            )


def test_links_lead_somewhere(text, repository):
    targets = re.findall(r"\]\(([^)#:]+)\)", text)
    assert targets
    assert not [target for target in targets if not (repository / DOCUMENT).parent.joinpath(target).exists()]
