"""What tests in real containers share. They run where CXR_CONTAINERS names the tag of images that are built."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

Answer = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def tag() -> str:
    """Tag of the images cxr-data and cxr-train on this machine."""
    found = os.environ.get("CXR_CONTAINERS", "")
    if not found:
        reason = os.environ.get("CXR_NO_CONTAINERS") or "`make images VERSION=x`, then set CXR_CONTAINERS=x"
        pytest.skip(f"no containers: {reason}")
    return found


@pytest.fixture(scope="session")
def in_container(tag: str) -> Callable[..., Answer]:
    """Run a command in an image as a cluster would: as the image's user, with a read-only root file system."""

    def run(target: str, *words: str, options: tuple[str, ...] = ()) -> Answer:
        command = ["docker", "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "none"]
        return subprocess.run(
            [*command, *options, f"cxr-{target}:{tag}", *words], capture_output=True, text=True, timeout=300
        )

    return run
