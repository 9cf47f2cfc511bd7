"""The code that the result of each step depends on, as one short file per step for DVC."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

from cxr.lineage.code_closure import PACKAGE, import_closure

WITHOUT_EFFECT = (
    "errors.py",  # texts of errors
    "fast_import.py",  # how fast large packages load
    "files.py",  # names of files, and how they are written
    "images/result_*.py",  # where results of single images are kept
    "steps/base.py",  # reading of parameters, which DVC compares by value
    "steps/cache_fields.py",  # the same
    "steps/evaluation_fields.py",  # the same
    "steps/tracking_fields.py",  # where figures are logged
    "storage/*.py",  # how objects are downloaded
    "lineage/*.py",  # what is recorded about a run
    "tracking/*.py",  # the same, in MLflow
)
"""Code below the package that changes no figure of a stage."""

RECORDING = ("lineage/*.py", "tracking/*.py")
"""Code that only the stages of :data:`RECORDING_STEPS` depend on: recording is their work."""
RECORDING_STEPS = frozenset({"register", "register_regions"})

NETWORK_STEPS = frozenset({"train"})
"""Steps that build a network by its name. Their stages depend on the file of their network besides."""


def step_code(step: str, source: Path) -> list[str]:
    """List the code that the result of a step depends on.

    Args:
        step: name of the step.
        source: folder that holds the package.

    Returns:
        Sorted files of the package with their templates, for example ``"src/cxr/data/splitting.py"``.
    """
    excluded = [name for name in WITHOUT_EFFECT if step not in RECORDING_STEPS or name not in RECORDING]
    files = import_closure(f"{PACKAGE}.steps.{step}", source, excluded)
    if step in NETWORK_STEPS:
        files |= _imported_by_networks(source, excluded)
    package = source / PACKAGE
    folders = {(package / name).parent for name in files}
    templates = {path.relative_to(package).as_posix() for folder in folders for path in folder.glob("templates/*")}
    return [f"{source.name}/{PACKAGE}/{name}" for name in sorted(files | templates)]


def _imported_by_networks(source: Path, excluded: Sequence[str]) -> set[str]:
    """Find what the files of networks import; a network is built by its name, which no import statement shows."""
    files: set[str] = set()
    for path in (source / PACKAGE / "models").glob("*.py"):
        if "\ndef build(" in path.read_text(encoding="utf-8"):
            files |= import_closure(f"{PACKAGE}.models.{path.stem}", source, excluded) - {f"models/{path.name}"}
    return files


def write_step_code(steps: Iterable[str], source: Path, folder: Path) -> None:
    """Write the code of each step with its hashes, in the form of ``md5sum``.

    Args:
        steps: names of the steps.
        source: folder that holds the package.
        folder: existing folder for one file ``STEP.md5`` per step. ``md5sum --check`` compares it with the code.
    """
    hashes: dict[str, str] = {}
    for step in steps:
        lines = []
        for name in step_code(step, source):
            if name not in hashes:
                content = (source.parent / name).read_bytes()
                hashes[name] = hashlib.md5(content, usedforsecurity=False).hexdigest()
            lines.append(f"{hashes[name]}  {name}\n")
        (folder / f"{step}.md5").write_text("".join(lines), encoding="utf-8")
