"""Reproducing a version: check out its commit in a new folder, with the recorded parameters, data and commands."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr.data.dvc_hashes import pointer_md5
from cxr.data.sources.opening import source_kind
from cxr.data.sources.phantom import PhantomSource
from cxr.errors import ParameterError, RegistryError
from cxr.files import TRAINING_FILE, read_json
from cxr.lineage.provenance import (
    DATA_POINTER,
    DIRTY_SUFFIX,
    PARAMETERS_FILE,
    RECORDED_FILES,
    requirements_digest,
    run_git,
)
from cxr.lineage.version_lineage import Lineage
from cxr.yaml_text import parse_yaml

ENSEMBLE_STAGE = "ensemble"


@dataclass(frozen=True)
class ReproductionPlan:
    """How to reproduce a version.

    Attributes:
        title: name, number and aliases of the version.
        commit: the commit that was checked out.
        commands: shell commands, in order.
        measures: name to the value that the evaluation must give.
        notes: what a reader must know about the data, the packages and what was not recorded.
    """

    title: str
    commit: str
    commands: tuple[str, ...]
    measures: Mapping[str, float]
    notes: tuple[str, ...]

    def to_text(self) -> str:
        """Write commands, expected measures and notes for a terminal."""
        lines = [f"{self.title}, commit {self.commit}", "", "run:", *(f"  {command}" for command in self.commands)]
        lines += ["", "measures to expect:", *(f"  {name} {value:.6f}" for name, value in self.measures.items())]
        lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"


def training_commit(lineage: Lineage, preferred: str | None = None) -> str:
    """Return the commit that reproduces a version.

    Args:
        lineage: the version's lineage.
        preferred: a commit that the user prefers; None takes the commit that trained the version.

    Returns:
        Name of the commit.

    Raises:
        RegistryError: if the commit is unknown, or if the code had changes that were never committed.
    """
    if preferred is not None:
        return preferred
    commit = lineage.tags.get("git_commit", "")
    if not commit:
        raise RegistryError(
            f"expected {lineage.title} to name the commit that trained it, received a version without one: it was "
            "trained outside a checkout; name a commit (--commit) if you know it"
        )
    if commit.endswith(DIRTY_SUFFIX):
        clean = commit.removesuffix(DIRTY_SUFFIX)
        raise RegistryError(
            f"expected {lineage.title} to be trained by a commit, received git_commit={commit}: its code had changes "
            f"that were not committed, which nobody can check out; train it again from a commit, or take that "
            f"commit without the changes (--commit {clean})"
        )
    return commit


def clone_at_commit(repository: Path, commit: str, folder: Path) -> str:
    """Clone a repository into a new folder and check out a commit there. The repository itself does not change.

    Args:
        repository: a folder of the checkout to clone.
        commit: what to check out.
        folder: a new or empty folder.

    Returns:
        Full name of the commit.

    Raises:
        ParameterError: if the folder is not empty, ``repository`` is not a checkout, or it lacks the commit.
        RegistryError: if git fails.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ParameterError([f"expected a new or empty folder, received folder={folder}; name another one"])
    root = run_git(repository, "rev-parse", "--show-toplevel")
    if root is None:
        raise ParameterError([f"expected a git checkout of the project, received repository={repository}"])
    full_name = run_git(repository, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    if full_name is None:
        raise ParameterError(
            [f"expected a commit of {repository}, received commit={commit}, which it does not hold; "
             "run `git fetch --all` there, or name a checkout that has it (--repository)"]
        )  # fmt: skip
    is_new = not folder.exists()
    clone = ("clone", "--quiet", "--no-hardlinks", "--no-checkout", root, str(folder.absolute()))
    if run_git(Path(), *clone) is None or run_git(folder, "checkout", "--quiet", "--detach", full_name) is None:
        if is_new:
            shutil.rmtree(folder, ignore_errors=True)
        raise RegistryError(
            f"expected git to clone {root} into {folder}, received an error; is there room on the disk?"
        )
    return full_name


def restore_recorded_files(record: Path, folder: Path) -> list[str]:
    """Replace files of a checkout by the recorded ones.

    Args:
        record: folder of the record.
        folder: the checkout.

    Returns:
        Files that differ from the commit's, relative to the folder.
    """
    changed = []
    for name in RECORDED_FILES:
        source, target = record / name, folder / name
        if source.is_file() and (not target.is_file() or source.read_bytes() != target.read_bytes()):
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, target)
            changed.append(name)
    return changed


def unrecorded_parameters(
    record: Path, model: str, resolve: Callable[[dict[str, Any]], Mapping[str, Any]]
) -> dict[str, Any]:
    """Find training parameters that the recorded parameter file does not hold, because a person set them by a flag.

    Args:
        record: folder of the record.
        model: name of the model.
        resolve: from the values of the parameter file to all values of a training, with its defaults.

    Returns:
        Parameter to the value that the training used; empty if the record is incomplete, or if its parameters had
        other names at that time.
    """
    training, parameters = record / TRAINING_FILE, record / PARAMETERS_FILE
    if not training.is_file() or not parameters.is_file():
        return {}
    used: Mapping[str, Any] = read_json(training).get("parameters") or {}
    sections = parse_yaml(parameters.read_bytes())
    own_section: Mapping[str, Any] = next(
        (sections[name][model] for name in ("models", "transfer") if model in (sections.get(name) or {})), {}
    )
    try:
        recorded = resolve({**(sections.get("train") or {}), **own_section})
    except ParameterError:
        return {}
    return {name: value for name, value in used.items() if name in recorded and recorded[name] != value}


def plan_reproduction(
    lineage: Lineage,
    folder: Path,
    commit: str,
    changed_files: Sequence[str] | None,
    parameters: Mapping[str, Any] | None = None,
) -> ReproductionPlan:
    """Plan the commands and data that give the measures of a version again.

    Args:
        lineage: the version's lineage.
        folder: the checkout of its commit.
        commit: name of the commit.
        changed_files: recorded files that differ from the commit's; None if nothing was recorded.
        parameters: parameters of the training that the recorded ``params.yaml`` does not hold.

    Returns:
        The plan.
    """
    tags = lineage.tags
    commands = [
        f"cd {shlex.quote(str(folder))}",
        "make .venv/gpu.stamp" if tags.get("gpu") == "yes" else "make .venv/run.stamp",
        ". .venv/bin/activate",
        _data_command(tags.get("data_source")),
        "dvc status data.dvc  # 'modified' here means that these are other data",
        f"dvc repro {_final_stage(lineage)}",
    ]
    notes = [_data_note(lineage, folder), *_environment_notes(lineage, folder)]
    if changed_files is None:
        notes.append("Only the commit was recorded: its params.yaml and dvc.lock may differ from the ones used.")
    elif changed_files:
        notes.append(f"As recorded at registration, and not as in the commit: {', '.join(changed_files)}.")
    if parameters:
        values = ", ".join(f"{name}: {value}" for name, value in parameters.items())
        notes.append(f"Trained with values that params.yaml does not hold; write them there first: {values}.")
    if "dvc_stage" not in tags:
        notes.append("The lock file of DVC did not describe this model: it was trained by hand.")
    registered_from = tags.get("registered_from")
    if registered_from not in (None, commit):
        notes.append(
            f"It was evaluated or registered from commit {registered_from}: if the evaluation changed in between, "
            "check out that commit."
        )
    notes.append(
        f"Trained on {tags.get('device', 'an unknown device')}. On another device or with other packages, training "
        "runs differently: expect measures within the intervals of the model card, not the same digits."
    )
    return ReproductionPlan(lineage.title, commit, tuple(commands), lineage.measures, tuple(notes))


def _data_command(source: str | None) -> str:
    if source is None or source == "unknown":
        return "dvc pull data.dvc  # the source of the data was not recorded: from your DVC remote"
    if not source_kind(source).is_local:
        return f"cxr fetch --params params.yaml --source {shlex.quote(source)}"
    path = shlex.quote(f"PATH/TO/{source}")
    return f"cxr fetch --params params.yaml --source {path}  # or, from a DVC remote: dvc pull data.dvc"


def _data_note(lineage: Lineage, folder: Path) -> str:
    recorded_md5 = lineage.tags.get("data_md5")
    if recorded_md5 is None:
        return "The md5 of the data was not recorded."
    checkout_md5 = pointer_md5(folder / DATA_POINTER)
    note = f"Data: md5 {recorded_md5}, source {lineage.tags.get('data_source', 'not recorded')}."
    if checkout_md5 != recorded_md5:
        note += f" {DATA_POINTER} of this checkout names other data ({checkout_md5}); `dvc pull` brings those."
    if lineage.tags.get("data_source") == PhantomSource.scheme:
        note += " Phantoms are drawn again, each time the same."
    return note


def _environment_notes(lineage: Lineage, folder: Path) -> list[str]:
    recorded = lineage.tags.get("environment")
    if recorded is None:
        return ["Versions of packages were not recorded; this plan takes the commit's own."]
    name, _, remainder = recorded.partition(" sha256:")
    digest, _, differences = remainder.partition(", ")
    is_same = requirements_digest(folder / "requirements" / name) == digest
    notes = [f"Packages: requirements/{name} {'is the recorded one' if is_same else 'is NOT the recorded one'}."]
    return notes + ([f"Of the training's packages, {differences.removeprefix('but ')}."] if differences else [])


def _final_stage(lineage: Lineage) -> str:
    """The DVC stage that writes the version's measures."""
    own_graph = "regions/dvc.yaml:" if lineage.tags.get("task") == "detection" else ""
    training_stage = lineage.tags.get("dvc_stage") or f"{own_graph}train@{lineage.tags.get('model')}"
    graph, colon, stage = training_stage.rpartition(":")
    if lineage.members:
        return f"{graph}{colon}{ENSEMBLE_STAGE}"
    return f"{graph}{colon}{stage.replace('train@', 'evaluate@')}"
