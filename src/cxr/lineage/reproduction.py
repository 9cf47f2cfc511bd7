"""Making a version again: its commit in a folder of its own, with the recorded parameters, data and commands."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxr.data.sources.fetching import PHANTOM, is_local
from cxr.data.version import pointer_md5
from cxr.errors import ParameterError, RegistryError
from cxr.lineage.provenance import DIRTY, environment_digest
from cxr.lineage.record_files import FILES, POINTER
from cxr.lineage.version_lineage import Lineage

ENSEMBLE_STAGE = "ensemble"


@dataclass(frozen=True)
class Plan:
    """How a version is made again.

    Attributes:
        title: the version in words.
        commit: commit that was checked out.
        commands: lines for a shell, in order.
        figures: name to the value that the evaluation must give.
        notes: what a reader must know about the data, the packages and what was not recorded.
    """

    title: str
    commit: str
    commands: tuple[str, ...]
    figures: Mapping[str, float]
    notes: tuple[str, ...]

    def to_text(self) -> str:
        """Write it for a terminal.

        Returns:
            Notes, commands and figures.
        """
        lines = [f"{self.title}, commit {self.commit}", "", "run:", *(f"  {line}" for line in self.commands)]
        lines += ["", "figures to expect:", *(f"  {name} {value:.6f}" for name, value in self.figures.items())]
        lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"


def commit_of(found: Lineage, wanted: str | None = None) -> str:
    """Say which commit makes the version.

    Args:
        found: the version's lineage.
        wanted: a commit that a person prefers; None takes the one that trained it.

    Returns:
        Name of the commit.

    Raises:
        RegistryError: if it is unknown, or held changes that were never committed.
    """
    if wanted is not None:
        return wanted
    commit = found.tags.get("git_commit", "")
    if not commit:
        raise RegistryError(
            f"expected {found.title} to name the commit that trained it, received a version without one: it was "
            "trained outside a checkout; name a commit (--commit) if you know it"
        )
    if commit.endswith(DIRTY):
        clean = commit.removesuffix(DIRTY)
        raise RegistryError(
            f"expected {found.title} to be trained by a commit, received git_commit={commit}: its code had changes "
            f"that were not committed, which nobody can check out; train it again from a commit, or take that "
            f"commit without the changes (--commit {clean})"
        )
    return commit


def check_out(repository: Path, commit: str, folder: Path) -> str:
    """Clone a repository into a new folder, at a commit; the repository itself stays as it is.

    Args:
        repository: a folder of the checkout to clone.
        commit: what to check out.
        folder: must be new or empty.

    Returns:
        Full name of the commit.

    Raises:
        ParameterError: if the folder is in use, there is no repository, or it doesn't know the commit.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ParameterError([f"expected a new or empty folder, received folder={folder}; name another one"])
    top = _git(repository, "rev-parse", "--show-toplevel")
    if top is None:
        raise ParameterError([f"expected a git checkout of the project, received repository={repository}"])
    full = _git(repository, "rev-parse", "--verify", "--quiet", f"{commit}^{{commit}}")
    if full is None:
        raise ParameterError(
            [f"expected a commit of {repository}, received commit={commit}, which it does not hold; "
             "run `git fetch --all` there, or name a checkout that has it (--repository)"]
        )  # fmt: skip
    new = not folder.exists()
    done = (
        _git(Path(), "clone", "--quiet", "--no-hardlinks", "--no-checkout", str(top), str(folder.absolute()))
        is not None
        and _git(folder, "checkout", "--quiet", "--detach", full) is not None
    )
    if not done:
        if new:
            shutil.rmtree(folder, ignore_errors=True)
        raise RegistryError(f"expected git to clone {top} into {folder}, received an error; is there room on the disk?")
    return full


def lay_out(record: Path, folder: Path) -> list[str]:
    """Put recorded files over those of the commit.

    Args:
        record: folder of the record.
        folder: the checkout.

    Returns:
        Files that differ from the commit's, relative to the folder.
    """
    changed = []
    for name in FILES:
        source, target = record / name, folder / name
        if source.is_file() and (not target.is_file() or source.read_bytes() != target.read_bytes()):
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, target)
            changed.append(name)
    return changed


def plan(
    found: Lineage, folder: Path, commit: str, changed: Sequence[str] | None, given: Mapping[str, Any] | None = None
) -> Plan:
    """Say which commands and data give the figures of a version.

    Args:
        found: the version's lineage.
        folder: where its commit was checked out.
        commit: name of the commit.
        changed: recorded files that differ from the commit's; None if nothing was recorded.
        given: parameters of the training that its ``params.yaml`` doesn't hold.

    Returns:
        The plan.
    """
    gpu = found.tags.get("gpu") == "yes"
    commands = [
        f"cd {shlex.quote(str(folder))}",
        "make .venv/gpu.stamp" if gpu else "make .venv/run.stamp",
        ". .venv/bin/activate",
        *_data_commands(found.tags.get("data_source")),
        "dvc status data.dvc  # 'modified' here means that these are other data",
        f"dvc repro {_stage(found)}",
    ]
    notes = [*_data_notes(found, folder), *_environment_notes(found, folder)]
    if changed is None:
        notes.append("Nothing but the commit was recorded: its own params.yaml and dvc.lock may be others.")
    elif changed:
        notes.append(f"As recorded at registration, and not as in the commit: {', '.join(changed)}.")
    if given:
        values = ", ".join(f"{name}: {value}" for name, value in given.items())
        notes.append(f"Trained with values that params.yaml does not hold; write them there first: {values}.")
    if "dvc_stage" not in found.tags:
        notes.append("The lock file of DVC did not describe this model: it was trained by hand.")
    since = found.tags.get("registered_from")
    if since not in (None, commit):
        notes.append(
            f"It was judged or registered from commit {since}: if evaluation changed in between, check that out."
        )
    notes.append(
        f"Trained on {found.tags.get('device', 'an unknown device')}. On another device or with other packages, "
        "training takes another course: expect figures within the intervals of the model card, not the same digits."
    )
    return Plan(found.title, commit, tuple(commands), found.figures, tuple(notes))


def _data_commands(source: str | None) -> list[str]:
    if source is None or source == "unknown":
        return ["dvc pull data.dvc  # the source of the data was not recorded: from your DVC remote"]
    if not is_local(source):
        return [f"cxr fetch --params params.yaml --source {shlex.quote(source)}"]
    where = shlex.quote(f"PATH/TO/{source}")
    return [f"cxr fetch --params params.yaml --source {where}  # or, from a DVC remote: dvc pull data.dvc"]


def _data_notes(found: Lineage, folder: Path) -> list[str]:
    wanted = found.tags.get("data_md5")
    if wanted is None:
        return ["The md5 of the data was not recorded."]
    there = pointer_md5(folder / POINTER)
    note = f"Data: md5 {wanted}, source {found.tags.get('data_source', 'not recorded')}."
    if there != wanted:
        note += f" {POINTER} of this checkout names other data ({there}): what `dvc pull` brings is not it."
    if found.tags.get("data_source") == PHANTOM:
        note += " Phantoms are drawn anew, each time the same."
    return [note]


def _environment_notes(found: Lineage, folder: Path) -> list[str]:
    recorded = found.tags.get("environment")
    if recorded is None:
        return ["Versions of packages were not recorded; the commit's own are taken."]
    name, _, rest = recorded.partition(" sha256:")
    digest, _, others = rest.partition(", ")
    same = environment_digest(folder / "requirements" / name) == digest
    notes = [f"Packages: requirements/{name} {'is the recorded one' if same else 'is NOT the recorded one'}."]
    return notes + ([f"Of the training's packages, {others.removeprefix('but ')}."] if others else [])


def _stage(found: Lineage) -> str:
    """Stage that ends with the version's figures."""
    stage = found.tags.get("dvc_stage") or f"train@{found.tags.get('model')}"
    graph, colon, own = stage.rpartition(":")
    if found.members:
        return f"{graph}{colon}{ENSEMBLE_STAGE}"
    return f"{graph}{colon}{own.replace('train@', 'evaluate@')}"


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True)
    except (subprocess.SubprocessError, OSError):
        return None
    return answer.stdout.strip()
