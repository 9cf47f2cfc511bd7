"""Where a result comes from: commit of the code, version of the data and packages, the processor."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import yaml

from cxr.data.version import folder_md5, pointer_md5
from cxr.errors import DataError

CODE = ("src", "dvc.yaml", "pyproject.toml", "requirements")
"""What is code: a commit without changes here is the program that ran."""

DIRTY = "-dirty"
"""Stands behind a commit when code differed from it."""

PIPELINE_RUN, IMAGE_DIGEST = "CXR_PIPELINE_RUN", "CXR_IMAGE_DIGEST"
"""Environment variables that a container sets: the pipeline's run, and the image that the step runs in."""

GIT_COMMIT = "CXR_GIT_COMMIT"
"""Environment variable for what a container lacks: a checkout."""

IMAGE_FILES = Path("/opt/cxr")
"""Folder of a container image that holds the requirement files that it was built from."""

REQUIREMENTS = ("run.txt", "gpu.txt")
"""Files of pinned packages that steps run with."""


def origin(root: Path, image: Path = IMAGE_FILES) -> dict[str, str | None]:
    """Say what is running here, as a model's card keeps it.

    Args:
        root: a folder of the checkout, with ``requirements/`` inside.
        image: folder of the image with ``requirements/`` inside, for where there is no checkout.

    Returns:
        ``git_commit``, ``environment``, ``pipeline_run`` and ``image_digest``, each None where unknown: a step
        run by hand or by DVC has no pipeline run and no image.
    """
    return {
        "git_commit": git_commit(root),
        "environment": environment(root / "requirements") or environment(image / "requirements"),
        "pipeline_run": os.environ.get(PIPELINE_RUN) or None,
        "image_digest": os.environ.get(IMAGE_DIGEST) or None,
    }


def git_commit(root: Path) -> str | None:
    """Name the commit that a checkout stands on.

    Args:
        root: a folder of the checkout.

    Returns:
        40 hex digits, with ``-dirty`` behind them when code differs from it. Outside a checkout, before the first
        commit, or without git, what :data:`GIT_COMMIT` holds, as in a container; else None. Parameters and data
        do not count: a run alters their lock files itself, and both are recorded by value and by hash.
    """
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return os.environ.get(GIT_COMMIT) or None
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", *CODE)
    return f"{commit}{DIRTY}" if changed else commit


def data_md5(pointer: Path, told: str | None = None) -> str | None:
    """Name the version of the data: DVC's hash of the data folder.

    Args:
        pointer: the pointer file, ``data.dvc``.
        told: the version as a pipeline tells it to a container, where there is no pointer.

    Returns:
        The hash, with ``.dir`` behind it for a folder; None if nobody knows it.

    Raises:
        DataError: if both are there and differ: a model would be recorded with data that it never saw.
    """
    found = pointer_md5(pointer)
    if None not in (found, told) and found != told:
        raise DataError(
            f"expected one version of the data, received data_version={told} and {pointer} with md5={found}; "
            f"leave data_version out if {pointer} describes the data, else remove {pointer}"
        )
    return found or told


def environment_digest(requirements: Path) -> str | None:
    """Digest of a file of pinned requirements: two environments with the same digest hold the same packages.

    Args:
        requirements: the file; comments and empty lines don't count.

    Returns:
        64 hex digits of sha256; None if there is no such file.
    """
    pins = _pins(requirements)
    return None if pins is None else hashlib.sha256("\n".join(pins).encode()).hexdigest()


def environment(folder: Path) -> str | None:
    """Name the pinned environment that this process runs in, and hold it against what is installed.

    Args:
        folder: folder of the requirement files.

    Returns:
        Name and digest of the file of :data:`REQUIREMENTS` with the most packages installed, for example
        ``"run.txt sha256:3f2a..."``, with the packages behind it whose versions are others than the pinned ones;
        None if there is no such file.
    """
    found: list[tuple[int, str]] = []
    for name in REQUIREMENTS:
        wanted = _versions(_pins(folder / name) or [])
        if not wanted:
            continue
        installed = {package: _installed(package) for package in wanted}
        present = {package: version for package, version in installed.items() if version is not None}
        others = [f"{package} {version}" for package, version in present.items() if version not in wanted[package]]
        text = f"{name} sha256:{environment_digest(folder / name)}"
        if others:
            text += f", but {len(others)} packages differ: {', '.join(others[:5])}"
        found.append((len(present), text))
    # gpu.txt pins all that run.txt does, and more: it counts once one of those is installed.
    return max(found, key=lambda entry: entry[0])[1] if found else None


def file_digest(path: Path) -> str | None:
    """Digest of a file's content.

    Args:
        path: the file.

    Returns:
        64 hex digits of sha256; None if it cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def stage_of(lock: Path, folder: Path) -> str | None:
    """Find the stage that made a folder, if DVC's lock file describes the folder as it is now.

    Args:
        lock: a ``dvc.lock``.
        folder: an output, spelled as in the graph: relative to the root of the repository.

    Returns:
        For example ``"train@three_block"``; None if no stage made it, or it was made by hand since.
    """
    try:
        outs = _outs(lock.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return None
    for name, written in outs.items():
        if folder.as_posix() in written:
            return str(name) if written[folder.as_posix()] == folder_md5(folder) else None
    return None


@lru_cache(maxsize=4)
def _outs(lock: str) -> dict[str, dict[str, str]]:
    """Stage to its outputs' hashes by path; kept, because reading a long lock file takes half a second."""
    stages = yaml.load(lock, getattr(yaml, "CSafeLoader", yaml.SafeLoader))["stages"]  # noqa: S506 (both are safe)
    return {name: {out["path"]: out["md5"] for out in stage.get("outs", ())} for name, stage in stages.items()}


def _git(root: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return None
    return answer.stdout.strip()


def _pins(requirements: Path) -> list[str] | None:
    """Lines of a requirement file without comments and empty lines; None if there is no such file."""
    try:
        lines = requirements.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def _versions(pins: list[str]) -> dict[str, set[str]]:
    """Package to its pinned versions: several where systems or versions of Python differ."""
    found: dict[str, set[str]] = {}
    for pin in pins:
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", pin)
        if match:
            found.setdefault(match[1], set()).add(match[2])
    return found


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
