"""Explains which installation has a package that a step needs and this installation lacks."""

from __future__ import annotations

import os
import re
from importlib import metadata

from cxr.errors import InstallationError

IMAGE_VARIABLE = "CXR_IMAGE"
"""Environment variable of an image: the target of ``components/Dockerfile`` that it was built from."""

INSTALLATIONS = {
    "train": ("training image (cxr-train)", "run.txt"),
    "kubeflow": ("environment of Kubeflow", "kubeflow.txt"),
    "serve": ("serving image (cxr-serve)", "serve.txt"),
    "export": ("environment of exports", "export.txt"),
    "pacs": ("image of the DICOM node (cxr-node)", "pacs.txt"),
}
"""Extra of this package to the installation that has it, and to its file of pinned packages."""


def explain_missing_package(error: ModuleNotFoundError) -> InstallationError | None:
    """Explain why a package could not be imported.

    Args:
        error: the error that Python raised.

    Returns:
        An error that says what to do, if the package belongs to an extra; None for any other module, whose absence is
        a fault of the program.
    """
    package = (error.name or "").partition(".")[0]
    for requirement in metadata.requires("cxr") or ():
        match = re.match(r"""([\w-]+).*;.*extra == ["'](\w+)["']""", requirement)
        if match is None or match[1].replace("-", "_") != package or match[2] not in INSTALLATIONS:
            continue
        installation, file = INSTALLATIONS[match[2]]
        image = os.environ.get(IMAGE_VARIABLE)
        received = f"received the image {IMAGE_VARIABLE}={image}" if image else "received an installation"
        return InstallationError(
            f"expected the {installation}, which has the package {package}, {received} without it; "
            f"run this step there, or install requirements/{file}"
        )
    return None
