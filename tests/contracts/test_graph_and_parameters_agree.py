"""Step classes, ``params.yaml``, ``dvc.yaml`` and the command line say the same thing."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml

from cxr.cli.main import all_commands, declared_sections, parse_step
from cxr.kubeflow import CONTAINERS_SECTION
from cxr.kubeflow.actions import ACTIONS, load_action
from cxr.kubeflow.actions.base import SECTION_KEYS
from cxr.lineage.dvc_graph import with_models
from cxr.lineage.step_code import NETWORK_STEPS
from cxr.models.networks import NETWORKS
from cxr.steps import STEPS, load_step
from cxr.steps.base import Input, Output, WorkingFolder
from cxr.steps.parameters import section_names
from support.dvc_stages import filled_stages

GRAPHS = {"dvc.yaml": "", "transfer/dvc.yaml": "", "regions/dvc.yaml": "_regions"}
"""Graph to what follows the name of a stage in the name of its step."""

CODE = re.compile(r"src/|artifacts/code/")
"""Dependencies that are code."""

ABOUT_VERSIONS = {
    "approve",
    "champion",
    "history",
    "lineage",
    "release",
    "reproduce",
    "rollback",
    "webhook",
    "sbom",
    "serve",
    "sign",
}
"""Steps that answer questions about the registry, move its aliases for a person, or react to moves."""
OUTSIDE_THE_GRAPH = ABOUT_VERSIONS | {
    "adopt", "app", "compare", "drift", "export", "fetch", "graph", "judge", "node", "node_status", "outcome",
    "predict", "reference_shard", "results", "train_on_nodes", "tune", "validate_shard",
}  # fmt: skip
"""adopt brings a model of another machine; fetch makes the raw data that data.dvc owns; outcome ends a run on a
cluster; predict, judge and export use a version; results collects the figures of several runs; tune proposes values;
train_on_nodes takes the place of train on a cluster; validate_shard and reference_shard do a part of another step;
drift and compare watch what is served; app serves a page; node answers a PACS, and node_status lists its queue."""


@pytest.fixture(scope="module")
def params(repository):
    return yaml.safe_load((repository / "params.yaml").read_text())


@pytest.fixture(scope="module")
def stages(repository, params):
    """Every stage of the graphs with its foreach entries filled in, as (name, step's name, stage)."""
    return [
        (name, name.partition("@")[0] + ending, stage)
        for graph, ending in GRAPHS.items()
        for name, stage in filled_stages(repository / graph, params).items()
    ]


def test_every_step_but_the_outer_ones_is_a_stage(stages):
    assert {step_name for _, step_name, _ in stages} == set(STEPS) - OUTSIDE_THE_GRAPH


def test_stage_commands_are_valid_command_lines_of_their_steps(stages, repository, monkeypatch):
    monkeypatch.chdir(repository)
    for name, step_name, stage in stages:
        words = shlex.split(stage["cmd"])
        assert words[:2] == ["cxr", step_name], name
        parse_step(load_step(step_name), words[2:])


def test_stage_files_are_the_paths_of_the_step(stages, repository, monkeypatch):
    monkeypatch.chdir(repository)
    for name, step_name, stage in stages:
        built = parse_step(load_step(step_name), shlex.split(stage["cmd"])[2:])
        roles = type(built).artifacts()
        named = set(shlex.split(stage["cmd"]))
        for field, role in roles.items():
            if getattr(built, field) is None:
                continue
            path = str(getattr(built, field))
            if isinstance(role, Input) and not role.optional:
                assert path in stage["deps"], f"{name}: {field} is read but no dependency"
            if isinstance(role, Output):
                assert path in stage["outs"], f"{name}: {field} is written but no output"
            if isinstance(role, WorkingFolder):
                assert path not in stage["outs"], f"{name}: DVC would delete {field} before each run"
            if not isinstance(role, WorkingFolder):
                assert path in named, f"{name}: --{field} is left to its default"
        reads = {str(getattr(built, field)) for field, role in roles.items() if isinstance(role, Input)}
        writes = {str(getattr(built, field)) for field, role in roles.items() if isinstance(role, Output)}
        files = {path for path in stage["deps"] if not CODE.match(path)}
        assert {path for path in files if str(Path(path).parent) not in reads} <= reads, name
        assert set(stage["outs"]) == writes, name


def test_stages_depend_on_the_code_of_their_steps(stages, repository, params):
    """DVC runs a stage again only for what it depends on: code that is not listed changes figures unnoticed."""
    for name, step_name, stage in stages:
        code = {path for path in stage["deps"] if CODE.match(path)}
        if step_name == "code":
            assert code == {"src/cxr"}
            continue
        model = params["models"].get(name.partition("@")[2]) if step_name in NETWORK_STEPS else None
        network = {f"src/cxr/models/{model['architecture']}.py"} if model else set()
        listed = f"artifacts/code/{step_name}.md5"
        assert code == {listed} | network, f"{name}: name {listed} among deps"
        assert all((repository / path).is_file() for path in network), name


def test_the_generated_parts_of_the_graph_are_up_to_date(repository, params):
    graph = (repository / "dvc.yaml").read_text()
    assert graph == with_models(graph, list(params["models"])), "run `make generate`"


def test_detectors_are_judged_beside_a_classifier_of_the_first_graph(stages, params, repository, monkeypatch):
    monkeypatch.chdir(repository)
    classifier = params["evaluate_regions"]["compare_with"]
    assert classifier in params["models"]
    folders = {f"artifacts/models/{classifier}", f"artifacts/evaluations/{classifier}"}
    judged = [(name, stage) for name, step_name, stage in stages if step_name == "evaluate_regions"]
    assert len(judged) == len(params["regions"])
    for name, stage in judged:
        step = parse_step(load_step("evaluate_regions"), shlex.split(stage["cmd"])[2:])
        assert {str(step.classifier), str(step.classifier_evaluation)} == folders <= set(stage["deps"]), name


def test_a_detector_keeps_its_checkpoints_apart_from_those_of_a_classifier_with_its_name(repository, params):
    params = params | {"regions": {"shallow": params["regions"]["retinanet_lite0"]}}
    folders = [
        words[words.index("--checkpoints") + 1]
        for graph in GRAPHS
        for stage in filled_stages(repository / graph, params).values()
        if "--checkpoints" in (words := shlex.split(stage["cmd"]))
    ]
    assert len(folders) == len(set(folders)) > len(params["models"])
    assert {str(Path(folder).parent) for folder in folders} == {"artifacts/checkpoints"}, "DVC ignores this folder"


def test_stages_depend_on_the_sections_of_their_steps(stages, params):
    for name, step_name, stage in stages:
        step_class = load_step(step_name)
        key = name.partition("@")[2]
        expected = {
            re.sub(r"\{\w+\}", key, section)
            for section in step_class.sections
            if section not in step_class.sections_without_effect
        }
        there = {section for section in expected if "." not in section or key in params[section.split(".")[0]]}
        assert set(stage.get("params", ())) == there, name


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
    assert set(params) == {*section_names(all_commands()), CONTAINERS_SECTION} == declared_sections()
    for step_class in all_commands():
        for section in step_class.sections:
            if "{" in section:
                for entry in params[section.split(".")[0]].values():
                    assert set(entry) <= set(step_class.parameters()), section
            else:
                assert set(params[section] or {}) <= set(step_class.parameters()) | step_class.ignored_keys, section


def test_parameter_file_states_every_value_that_the_plain_steps_can_change(params):
    """What is left out of params.yaml would be a value that nobody sees."""
    for name in (
        "fetch", "validate", "resplit", "evaluate", "ensemble", "register", "evaluate_regions", "register_regions",
        "tune", "serve", "node", "drift",
    ):  # fmt: skip
        step_class = load_step(name)
        stated = {key for section in step_class.sections for key in params[section]} - step_class.ignored_keys
        assert stated == set(step_class.parameters()) - {"model"} - set(step_class.collected_sections), name


def test_parameter_file_states_what_actions_on_a_cluster_share(params):
    """What differs from call to call stands on the command line alone."""
    on_a_cluster = [name for name in ACTIONS if "kubeflow" in load_action(name).sections]
    parameters = [set(load_action(name).parameters()) for name in on_a_cluster]
    each_time = {"params", "package", "arguments", "wait", "seconds", "runs", "folder"}
    assert set(params["kubeflow"]) == set.union(*parameters) - each_time
    assert set(params["kubeflow"]) == SECTION_KEYS, "or an action would refuse the others' keys"
    for name in on_a_cluster:
        fields = load_action(name).model_fields
        for key in set(params["kubeflow"]) & set(fields):
            assert params["kubeflow"][key] == fields[key].default, f"{name}: {key}"


def test_every_model_names_a_recipe_that_is_prepared(params):
    assert {entry["recipe"] for entry in params["models"].values()} == set(params["recipes"])
    assert {entry["recipe"] for entry in params["transfer"].values()} - set(params["recipes"]) == set(
        params["transfer_recipes"]
    )
    assert {entry["recipe"] for entry in params["regions"].values()} <= set(params["recipes"])


def test_every_network_has_an_entry_and_no_name_is_used_twice(params):
    """Further entries may train a network again, for example from another seed."""
    assert not set(params["models"]) & set(params["transfer"])
    assert not set(params["regions"]) & {*params["models"], *params["transfer"]}
    entries = {**params["models"], **params["transfer"]}
    assert {name for name, entry in entries.items() if entry["architecture"] == name} == set(NETWORKS)
    assert {entry["architecture"] for entry in entries.values()} <= set(NETWORKS)


def test_every_network_can_be_searched_with_the_values_of_the_parameter_file(params, repository, monkeypatch):
    monkeypatch.chdir(repository)
    for model in (name for name, entry in params["models"].items() if entry["architecture"] == name):
        built = parse_step(load_step("tune"), ["--params", "params.yaml", "--model", model])
        assert built.base == params["train"] | params["models"][model]
    assert set(params["tune"]["model_space"]) <= set(params["models"])


def test_every_field_says_what_it_is_for():
    for command in all_commands():
        for field, info in command.model_fields.items():
            assert info.description and info.description.endswith("."), f"{command.name}.{field}"
