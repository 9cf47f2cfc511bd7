"""A folder in which ``make run`` works without an installation: the Makefile, ``cxr``, and a ``dvc`` of the test."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def write_checkout(folder: Path, repository: Path, dvc: str = "") -> Path:
    """Write the Makefile, the parameters, an installed ``cxr`` and a shell script in place of ``dvc``."""
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name in ("Makefile", "params.yaml"):
        shutil.copyfile(repository / name, folder / name)
    (programs / "cxr").symlink_to(Path(sys.executable).with_name("cxr"))
    # A link to Python would not find the packages of its virtual environment.
    for name, script in (("python", f'exec "{sys.executable}" "$@"'), ("dvc", dvc)):
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    return folder


def make(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``make`` in a checkout, without installing anything."""
    environment = {key: value for key, value in os.environ.items() if key not in ("DATA", "MAKEFLAGS", "MAKELEVEL")}
    command = ["make", "--assume-old=.venv/run.stamp", *arguments]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
