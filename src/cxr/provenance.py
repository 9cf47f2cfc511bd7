"""Where a result comes from: commit of the code, version of the data and packages, the processor."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from pathlib import Path

import yaml

CODE = ("src", "dvc.yaml", "pyproject.toml", "requirements")
"""What is code: a commit without changes here is the program that ran."""


def git_commit(root: Path) -> str | None:
    """Name the commit that a checkout stands on.

    Args:
        root: a folder of the checkout.

    Returns:
        40 hex digits, with ``-dirty`` behind them when code differs from it; None outside a checkout, before the
        first commit, or without git. Parameters and data do not count: a run alters their lock files itself,
        and both are recorded by value and by hash.
    """
    commit = _git(root, "rev-parse", "--verify", "HEAD")
    if commit is None:
        return None
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", *CODE)
    return f"{commit}-dirty" if changed else commit


def data_md5(pointer: Path) -> str | None:
    """Read DVC's hash of the data folder.

    Args:
        pointer: the pointer file, ``data.dvc``.

    Returns:
        The hash, with ``.dir`` behind it for a folder; None if there is no readable pointer.
    """
    try:
        values = yaml.safe_load(pointer.read_text(encoding="utf-8"))
        return str(values["outs"][0]["md5"])
    except (OSError, yaml.YAMLError, KeyError, IndexError, TypeError):
        return None


def environment_digest(requirements: Path) -> str | None:
    """Digest of a file of pinned requirements: two environments with the same digest hold the same packages.

    Args:
        requirements: the file; comments and empty lines don't count.

    Returns:
        64 hex digits of sha256; None if there is no such file.
    """
    try:
        lines = requirements.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    pins = [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]
    return hashlib.sha256("\n".join(pins).encode()).hexdigest()


def processor() -> str:
    """Name the processor.

    Returns:
        The model name as the system tells it, else the machine type.
    """
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _git(root: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, timeout=30, check=True
        )
    except (subprocess.SubprocessError, OSError):
        return None
    return answer.stdout.strip()
