"""The version of the code of a module: it changes when a result of the module may change."""

from __future__ import annotations

import hashlib
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cxr
from cxr.lineage.code_closure import PACKAGE, import_closure
from cxr.lineage.step_code import WITHOUT_EFFECT

LIBRARIES = (
    "numpy",
    "opencv-python-headless",
    "pandas",
    "pillow",
    "pydicom",
    "python-gdcm",
    "scikit-learn",
    "scipy",
    "simplejpeg",
)
"""Packages that decode images and compute with them."""


def code_version(module: str) -> str:
    """Describe all code that a result of a module depends on.

    Args:
        module: full name of the module, for example ``"cxr.images.decoding"``.

    Returns:
        Hexadecimal sha256 over the files of the import closure, the versions of :data:`LIBRARIES`, and the kind of
        processor, because libraries compute differently on another kind.
    """
    source = Path(cxr.__file__).parents[1]
    digest = hashlib.sha256(f"{platform.machine()}\n".encode())
    for name in sorted(import_closure(module, source, WITHOUT_EFFECT)):
        content = hashlib.sha256((source / PACKAGE / name).read_bytes()).hexdigest()
        digest.update(f"{name} {content}\n".encode())
    for library in LIBRARIES:
        digest.update(f"{library} {_installed_version(library)}\n".encode())
    return digest.hexdigest()


def _installed_version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return "not installed"
