"""Fixtures of the tests in real containers. They run if CXR_CONTAINERS is the tag of images that are built."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from cxr.kubeflow.container_engine import ContainerEngine

Result = subprocess.CompletedProcess[str]


@pytest.fixture(scope="session")
def tag() -> str:
    """Tag of the images cxr-data, cxr-train and cxr-node on this machine."""
    version = os.environ.get("CXR_CONTAINERS", "")
    if not version:
        reason = os.environ.get("CXR_NO_CONTAINERS") or "`make images VERSION=x`, then set CXR_CONTAINERS=x"
        pytest.skip(f"no containers: {reason}")
    return version


@pytest.fixture(scope="session")
def in_container(tag: str) -> Callable[..., Result]:
    """Run a command in an image as a cluster would: as the image's user, with a read-only root file system."""

    def run(target: str, *arguments: str, options: tuple[str, ...] = ()) -> Result:
        command = ["docker", "run", "--rm", "--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--network", "none"]
        return subprocess.run(
            [*command, *options, f"cxr-{target}:{tag}", *arguments], capture_output=True, text=True, timeout=300
        )

    return run


@pytest.fixture
def engine(tag: str, tmp_path: Path) -> ContainerEngine:
    """The engine, with the folder ``root`` for a run."""
    # A folder that belongs to root alone hides what is in it from the containers' user.
    for folder in (tmp_path, *list(tmp_path.parents)[:2]):
        folder.chmod(0o755)
    container_engine = ContainerEngine.find()
    container_engine.prepare(tmp_path / "root")
    return container_engine
