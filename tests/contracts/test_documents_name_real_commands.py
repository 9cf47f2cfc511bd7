"""Commands, parameters and files that the documents name exist."""

from __future__ import annotations

import re
import shlex
from itertools import pairwise

import pytest
import yaml

from cxr.cli.help import GROUP
from cxr.cli.main import all_commands, find_command, parse_step
from cxr.kubeflow.actions import ACTIONS
from cxr.kubeflow.container_settings import ContainerSettings
from cxr.steps import STEPS, load_step

DOCUMENTS = (
    "README.md", "CONTRIBUTING.md", "mlflow/README.md", "docs/guide.md", "docs/kubeflow.md", "docs/scale.md",
)  # fmt: skip
SECTIONS = "containers|kubeflow|promotion|fetch|validate|resplit|tracking|predict|serve|recipes"


@pytest.fixture(scope="module")
def texts(repository):
    return {name: (repository / name).read_text(encoding="utf-8") for name in DOCUMENTS}


def commands(texts):
    """Every command of a shell block, as (document, words)."""
    for name, text in texts.items():
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                words = shlex.split(line, comments=True)
                if words:
                    yield name, words


def test_step_commands_are_accepted(texts):
    count = 0
    for name, words in commands(texts):
        if words[0] == "cxr" and words[1] in {*STEPS, GROUP} and "--help" not in words:
            parse_step(*find_command(words[1:]))
            count += 1
        elif words[0] == "cxr":
            assert words[1] in {*STEPS, GROUP, "--help"}, f"{name}: {words}"
    assert count >= 4


def test_commands_in_sentences_name_steps(texts):
    commands_named = set()
    for name, text in texts.items():
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        for words in re.findall(r"`cxr ([a-z]+(?: [a-z]+)?)[^`]*`", prose):
            step, _, action = words.partition(" ")
            assert step in {*STEPS, GROUP}, f"{name}: {words}"
            assert step != GROUP or not action or action in ACTIONS, f"{name}: {words}"
            commands_named.add(words)
    assert {"kubeflow schedule", "predict"} <= commands_named


def test_scripts_that_are_run_exist(texts, repository):
    named = {script for text in texts.values() for script in re.findall(r"python ((?:benchmarks|docs)/\S+\.py)", text)}
    assert "benchmarks/scale.py" in named
    assert all((repository / script).is_file() for script in named)


def test_make_targets_exist(texts, repository):
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = {word for text in texts.values() for word in re.findall(r"(?:`|^)make ([a-z-]+)", text, re.MULTILINE)}
    assert named <= targets, named - targets
    assert {"run", "test", "ui", "results"} <= named


def test_parameters_set_by_commands_exist(texts, repository):
    params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    count = 0
    for name, words in commands(texts):
        for flag, setting in pairwise(words):
            if flag == "-S":
                value = params
                for part in setting.partition("=")[0].split(".")[:-1]:
                    value = value[part]
                last = setting.partition("=")[0].split(".")[-1]
                section = setting.partition(".")[0]
                owner = next(
                    step_class
                    for step_class in all_commands()
                    if section in {s.split(".")[0] for s in step_class.sections}
                )
                assert last in owner.model_fields, f"{name}: {setting}"
                count += 1
    assert count >= 3


def test_values_that_are_named_or_copied_exist(texts, repository):
    params = yaml.safe_load((repository / "params.yaml").read_text(encoding="utf-8"))
    named = {
        (name, tuple(place.split(".")))
        for name, text in texts.items()
        for place in re.findall(rf"`((?:{SECTIONS})(?:\.[a-z_0-9]+)+)[:`]", text)
    }
    for name, text in texts.items():
        for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL):
            for section, values in yaml.safe_load(block).items():
                if section == "models":
                    # The documents add models; each must be one that could be trained.
                    for model, entry in values.items():
                        load_step("train").build({**entry, "model": model, "prepared": ".", "trained": "."})
                    continue
                named |= {(name, (section, key)) for key in values}
                if section == "containers":
                    ContainerSettings.read({section: values})
    assert len(named) > 30
    for name, place in named:
        value = params
        for part in place:
            assert part in value, f"{name}: {place}"
            value = value[part] or {}


def test_links_lead_somewhere(repository):
    documents = [*repository.glob("*.md"), *repository.glob("docs/**/*.md"), *repository.glob("*/README.md")]
    assert len(documents) > 20
    for document in documents:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.relative_to(repository)}: {target}"


def test_the_glossary_names_packages_that_exist(repository):
    text = (repository / "docs" / "glossary.md").read_text(encoding="utf-8")
    modules = re.findall(r"`cxr\.([a-z_.]+)`", text)
    assert len(modules) > 15
    for module in modules:
        path = repository / "src" / "cxr" / module.replace(".", "/")
        assert path.is_dir() or path.with_suffix(".py").is_file(), module
