"""Step classes, ``params.yaml``, ``dvc.yaml`` and the command line say the same thing."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from cxr.cli.main import classes, parse
from cxr.kubeflow import CONTAINERS
from cxr.kubeflow.actions import ACTIONS, action
from cxr.kubeflow.actions.base import SECTION
from cxr.models.networks import BUILDERS
from cxr.steps import STEPS, step
from cxr.steps.base import Keeps, Reads, Writes
from cxr.steps.parameters import top_level

ABOUT_VERSIONS = {"champion", "history", "lineage", "release", "reproduce", "rollback", "webhook", "serve"}
"""Steps that answer questions about the registry, move its aliases for a person, or react to moves."""
OUTSIDE_THE_GRAPH = {"app", "drift", "fetch", "outcome", "predict", "results", "tune", *ABOUT_VERSIONS}
"""fetch makes the raw data that data.dvc owns; outcome ends a run on a cluster; predict uses a version; results
collects the figures of several runs; tune proposes values; drift watches what is served;
app serves a page."""


@pytest.fixture(scope="module")
def params(repository):
    return yaml.safe_load((repository / "params.yaml").read_text())


@pytest.fixture(scope="module")
def stages(repository, params):
    """Every stage of both graphs with its foreach entries filled in, as (name, step's name, stage)."""
    found = []
    for name, stage in (
        item
        for graph in ("dvc.yaml", "transfer/dvc.yaml")
        for item in yaml.safe_load((repository / graph).read_text())["stages"].items()
    ):
        if "foreach" not in stage:
            found.append((name, name, stage))
            continue
        items = params[stage["foreach"].strip("${}")]
        for key, item in items.items():
            filled = re.sub(r"\$\{item\.(\w+)\}", lambda match, item=item: str(item[match[1]]), yaml.dump(stage["do"]))
            found.append((f"{name}@{key}", name, yaml.safe_load(filled.replace("${key}", key))))
    return found


def test_every_step_but_the_outer_ones_is_a_stage(stages):
    assert {step_name for _, step_name, _ in stages} == set(STEPS) - OUTSIDE_THE_GRAPH


def test_stage_commands_are_valid_command_lines_of_their_steps(stages, repository, monkeypatch):
    monkeypatch.chdir(repository)
    for name, step_name, stage in stages:
        words = shlex.split(stage["cmd"])
        assert words[:2] == ["cxr", step_name], name
        parse(step(step_name), words[2:])


def test_stage_files_are_the_paths_of_the_step(stages, repository, monkeypatch):
    monkeypatch.chdir(repository)
    for name, step_name, stage in stages:
        built = parse(step(step_name), shlex.split(stage["cmd"])[2:])
        roles = type(built).artifacts()
        named = set(shlex.split(stage["cmd"]))
        for field, role in roles.items():
            if getattr(built, field) is None:
                continue
            path = str(getattr(built, field))
            if isinstance(role, Reads) and not role.optional:
                assert path in stage["deps"], f"{name}: {field} is read but no dependency"
            if isinstance(role, Writes):
                assert path in stage["outs"], f"{name}: {field} is written but no output"
            if isinstance(role, Keeps):
                assert path not in stage["outs"], f"{name}: DVC would delete {field} before each run"
            if not isinstance(role, Keeps):
                assert path in named, f"{name}: --{field} is left to its default"
        reads = {str(getattr(built, field)) for field, role in roles.items() if isinstance(role, Reads)}
        writes = {str(getattr(built, field)) for field, role in roles.items() if isinstance(role, Writes)}
        files = {path for path in stage["deps"] if not path.startswith("src/")}
        assert {path for path in files if str(Path(path).parent) not in reads} <= reads, name
        assert set(stage["outs"]) == writes, name


def test_stages_depend_on_the_code_that_makes_their_figures(stages, repository):
    for name, _, stage in stages:
        code = [path for path in stage["deps"] if path.startswith("src/")]
        assert code, f"{name} would not run again when its code changes"
        assert all((repository / path).exists() for path in code), name


def test_stages_depend_on_the_sections_of_their_steps(stages, params):
    for name, step_name, stage in stages:
        found = step(step_name)
        key = name.partition("@")[2]
        expected = {
            re.sub(r"\{\w+\}", key, section) for section in found.sections if section not in found.without_effect
        }
        there = {section for section in expected if "." not in section or key in params[section.split(".")[0]]}
        assert set(stage["params"]) == there, name


def test_leaderboard_and_plots_hold_every_model_and_the_ensemble(repository, params):
    graph = yaml.safe_load((repository / "dvc.yaml").read_text())
    judged = {f"artifacts/evaluations/{name}" for name in params["models"]} | {"artifacts/ensemble/evaluation"}
    assert set(graph["metrics"]) == {f"{folder}/summary.json" for folder in judged}
    assert {entry for entry in graph["plots"] if isinstance(entry, str)} == {f"{folder}/plots" for folder in judged}
    drawn = {title: set(values["y"]) for entry in graph["plots"] if isinstance(entry, dict)
             for title, values in entry.items()}  # fmt: skip
    trained = judged - {"artifacts/ensemble/evaluation"}
    assert drawn == {
        "ROC curve on test images": {f"{folder}/curves/roc.csv" for folder in judged},
        "Precision and recall on test images": {f"{folder}/curves/precision_recall.csv" for folder in judged},
        "Validation loss": {f"{folder}/curves/training.csv" for folder in trained},
    }


def test_every_section_and_key_of_the_parameter_file_is_a_field(params):
    assert set(params) == {*top_level(classes()), CONTAINERS}
    for found in classes():
        for section in found.sections:
            if "{" in section:
                for entry in params[section.split(".")[0]].values():
                    assert set(entry) <= set(found.parameters()), section
            else:
                assert set(params[section] or {}) <= set(found.parameters()) | found.passed_over, section


def test_parameter_file_states_every_value_that_the_plain_steps_can_change(params):
    """What is left out of params.yaml would be a value that nobody sees."""
    for name in ("fetch", "validate", "resplit", "evaluate", "ensemble", "register", "tune", "serve", "drift"):
        found = step(name)
        stated = {key for section in found.sections for key in params[section]} - found.passed_over
        assert stated == set(found.parameters()) - {"model"} - set(found.collects), name


def test_parameter_file_states_what_actions_on_a_cluster_share(params):
    """What differs from call to call stands on the command line alone."""
    on_a_cluster = [name for name in ACTIONS if "kubeflow" in action(name).sections]
    found = [set(action(name).parameters()) for name in on_a_cluster]
    each_time = {"params", "package", "arguments", "wait", "seconds", "runs", "folder"}
    assert set(params["kubeflow"]) == set.union(*found) - each_time
    assert set(params["kubeflow"]) == SECTION, "or an action would refuse the others' keys"
    for name in on_a_cluster:
        fields = action(name).model_fields
        for key in set(params["kubeflow"]) & set(fields):
            assert params["kubeflow"][key] == fields[key].default, f"{name}: {key}"


def test_every_model_names_a_recipe_that_is_prepared(params):
    assert {entry["recipe"] for entry in params["models"].values()} == set(params["recipes"])
    assert {entry["recipe"] for entry in params["transfer"].values()} - set(params["recipes"]) == set(
        params["transfer_recipes"]
    )


def test_every_network_has_an_entry_and_no_name_is_used_twice(params):
    entries = [*params["models"].items(), *params["transfer"].items()]
    assert sorted(name for name, _ in entries) == sorted(BUILDERS)
    assert all(entry["architecture"] == name for name, entry in entries)


def test_every_model_can_be_searched_with_the_values_of_the_parameter_file(params, repository, monkeypatch):
    monkeypatch.chdir(repository)
    for model in params["models"]:
        built = parse(step("tune"), ["--params", "params.yaml", "--model", model])
        assert built.base == params["train"] | params["models"][model]
    assert set(params["tune"]["model_space"]) <= set(params["models"])


def test_every_field_says_what_it_is_for():
    for found in classes():
        for field, info in found.model_fields.items():
            assert info.description and info.description.endswith("."), f"{found.name}.{field}"
