"""Packages that only some installations have: which one a step misses, and where there is an installation with it."""

from __future__ import annotations

import os
import re
from importlib import metadata

from cxr.errors import InstallationError

IMAGE = "CXR_IMAGE"
"""Environment variable that names the target of ``components/Dockerfile`` which an image was built as."""

HOMES = {
    "train": ("training image (cxr-train)", "run.txt"),
    "kubeflow": ("environment of Kubeflow", "kubeflow.txt"),
    "serve": ("serving image (cxr-serve)", "serve.txt"),
}
"""Extra of this package to the image that has it, and to its file of pinned packages."""


def absent(error: ModuleNotFoundError) -> InstallationError | None:
    """Explain why a package could not be imported.

    Args:
        error: what Python said.

    Returns:
        What to do, if the package belongs to an extra; None for any other module, whose absence is a fault.
    """
    package = (error.name or "").partition(".")[0]
    for requirement in metadata.requires("cxr") or ():
        match = re.match(r"""([\w-]+).*;.*extra == ["'](\w+)["']""", requirement)
        if match is None or match[1] != package or match[2] not in HOMES:
            continue
        home, file = HOMES[match[2]]
        here = os.environ.get(IMAGE)
        received = f"received the image {IMAGE}={here}" if here else "received an installation"
        return InstallationError(
            f"expected the {home}, which has the package {package}, {received} without it; "
            f"run this step there, or install requirements/{file}"
        )
    return None
