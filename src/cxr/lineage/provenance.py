"""What a result was made with: the commit, the version of the data, the packages and the container image."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from functools import lru_cache
from importlib import metadata
from pathlib import Path

import yaml

from cxr.data.dvc_hashes import folder_md5, pointer_md5
from cxr.errors import DataError
from cxr.yaml_text import parse_yaml

CODE_PATHS = ("src", "dvc.yaml", "pyproject.toml", "requirements")
"""Paths that hold code. If a commit has no changes here, it is the program that ran."""

DIRTY_SUFFIX = "-dirty"
"""Follows the name of a commit if the code differed from it."""

PIPELINE_RUN_VARIABLE, IMAGE_DIGEST_VARIABLE = "CXR_PIPELINE_RUN", "CXR_IMAGE_DIGEST"
"""Environment variables that a container sets: the id of the pipeline run, and the digest of the step's image."""

GIT_COMMIT_VARIABLE = "CXR_GIT_COMMIT"
"""Environment variable with the commit, because a container has no checkout."""

CONTAINER_IMAGE_FOLDER = Path("/opt/cxr")
"""Folder of a container image with the requirement files that the image was built from."""

REQUIREMENT_FILES = ("run.txt", "gpu.txt")
"""Files of pinned packages that steps run with."""

PARAMETERS_FILE, DATA_POINTER = "params.yaml", "data.dvc"
"""The parameter file, and DVC's pointer to the data."""

LOCK_FILES = ("dvc.lock", "transfer/dvc.lock", "regions/dvc.lock")
"""DVC's lock files: the hashes of all inputs and outputs of each stage."""

RECORDED_FILES = (PARAMETERS_FILE, DATA_POINTER, *LOCK_FILES)
"""Files of the repository that are kept with each registered version, as they were at registration."""


def current_provenance(root: Path, image: Path = CONTAINER_IMAGE_FOLDER) -> dict[str, str | None]:
    """Describe the running program, in the form that the model's metadata stores.

    Args:
        root: a folder of the checkout, with ``requirements/`` inside.
        image: folder of the container image with ``requirements/`` inside; used if there is no checkout.

    Returns:
        ``git_commit``, ``environment``, ``pipeline_run`` and ``image_digest``, each None if unknown. A step that a
        person or DVC runs has no pipeline run and no image.
    """
    return {
        "git_commit": git_commit(root),
        "environment": describe_environment(root / "requirements") or describe_environment(image / "requirements"),
        "pipeline_run": os.environ.get(PIPELINE_RUN_VARIABLE) or None,
        "image_digest": os.environ.get(IMAGE_DIGEST_VARIABLE) or None,
    }


def git_commit(root: Path) -> str | None:
    """Return the commit that a checkout is at.

    Changes of parameters and data do not make a commit dirty: a run changes their lock files itself, and both are
    recorded by value and by hash.

    Args:
        root: a folder of the checkout.

    Returns:
        40 hex digits, followed by ``-dirty`` if the code differs from the commit. The value of
        :data:`GIT_COMMIT_VARIABLE` outside a checkout, before the first commit and without git; None if that is not
        set.
    """
    commit = run_git(root, "rev-parse", "--verify", "HEAD", timeout=30)
    if commit is None:
        return os.environ.get(GIT_COMMIT_VARIABLE) or None
    changes = run_git(root, "status", "--porcelain", "--untracked-files=no", "--", *CODE_PATHS, timeout=30)
    return f"{commit}{DIRTY_SUFFIX}" if changes else commit


def run_git(folder: Path, *arguments: str, timeout: float | None = None) -> str | None:
    """Run git in a folder.

    Args:
        folder: where git runs.
        arguments: git's arguments.
        timeout: seconds; None waits without limit.

    Returns:
        What git printed, without surrounding blanks; None if git failed or is not installed.
    """
    command = ["git", "-C", str(folder), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=True).stdout.strip()
    except (subprocess.SubprocessError, OSError):
        return None


def data_md5(pointer: Path, data_version: str | None = None) -> str | None:
    """Return the version of the data: DVC's hash of the data folder.

    Args:
        pointer: the pointer file, ``data.dvc``.
        data_version: the version that a pipeline passes to a container, which has no pointer file.

    Returns:
        The hash, with ``.dir`` at its end for a folder; None if it is unknown.

    Raises:
        DataError: if both are known and differ. Otherwise a model would be recorded with data that it never saw.
    """
    pointer_version = pointer_md5(pointer)
    if None not in (pointer_version, data_version) and pointer_version != data_version:
        raise DataError(
            f"expected one version of the data, received data_version={data_version} and {pointer} with "
            f"md5={pointer_version}; leave data_version out if {pointer} describes the data, else remove {pointer}"
        )
    return pointer_version or data_version


def requirements_digest(requirements: Path) -> str | None:
    """Compute the digest of a requirement file. Environments with the same digest hold the same packages.

    Args:
        requirements: the file; comments and empty lines do not count.

    Returns:
        64 hex digits of sha256; None if there is no such file.
    """
    pins = read_pins(requirements)
    return None if pins is None else hashlib.sha256("\n".join(pins).encode()).hexdigest()


def describe_environment(folder: Path) -> str | None:
    """Name the requirement file that this process runs with, and the installed packages that differ from it.

    Args:
        folder: folder of the requirement files.

    Returns:
        Name and digest of the file of :data:`REQUIREMENT_FILES` with the most packages installed, for example
        ``"run.txt sha256:3f2a..."``. Packages whose installed version differs from the pinned one follow. None if
        there is no such file.
    """
    candidates: list[tuple[int, str]] = []
    for name in REQUIREMENT_FILES:
        pinned = _pinned_versions(read_pins(folder / name) or [])
        if not pinned:
            continue
        installed = {package: version for package in pinned if (version := _installed_version(package)) is not None}
        different = [f"{package} {version}" for package, version in installed.items() if version not in pinned[package]]
        description = f"{name} sha256:{requirements_digest(folder / name)}"
        if different:
            description += f", but {len(different)} packages differ: {', '.join(different[:5])}"
        candidates.append((len(installed), description))
    # gpu.txt pins everything that run.txt pins, and more. It wins if one of the additional packages is installed.
    return max(candidates, key=lambda candidate: candidate[0])[1] if candidates else None


def file_digest(path: Path) -> str | None:
    """Compute the digest of a file's content.

    Args:
        path: the file.

    Returns:
        64 hex digits of sha256; None if the file cannot be read.
    """
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None


def dvc_stage(lock: Path, folder: Path) -> str | None:
    """Find the DVC stage that wrote a folder.

    Args:
        lock: a ``dvc.lock``.
        folder: an output, spelled as in the graph: relative to the root of the repository.

    Returns:
        For example ``"train@three_block"``; None if no stage wrote it, or if it has changed since.
    """
    try:
        stages = _stage_outputs(lock.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError):
        return None
    for name, hashes in stages.items():
        if folder.as_posix() in hashes:
            return str(name) if hashes[folder.as_posix()] == folder_md5(folder) else None
    return None


@lru_cache(maxsize=4)
def _stage_outputs(lock: str) -> dict[str, dict[str, str]]:
    """Stage to path to hash of its outputs; cached, because parsing a long lock file takes half a second."""
    stages = parse_yaml(lock)["stages"]
    return {name: {out["path"]: out["md5"] for out in stage.get("outs", ())} for name, stage in stages.items()}


def read_pins(requirements: Path) -> list[str] | None:
    """Read the lines of a requirement file.

    Args:
        requirements: the file.

    Returns:
        Lines without comments and empty lines, those with hashes too; None if there is no such file.
    """
    try:
        lines = requirements.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def _pinned_versions(pins: list[str]) -> dict[str, set[str]]:
    """Package to its pinned versions; there are several if operating systems or versions of Python differ."""
    versions: dict[str, set[str]] = {}
    for pin in pins:
        match = re.match(r"([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;\\]+)", pin)
        if match:
            versions.setdefault(match[1], set()).add(match[2])
    return versions


def _installed_version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
