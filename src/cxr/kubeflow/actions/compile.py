"""Compile: write a pipeline, with the values of the parameter file, as one file for Kubeflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.kubeflow.actions.base import CompilingAction, default_package_path


class CompilePackage(CompilingAction):
    """Write a pipeline as one file that can be uploaded by hand, or submitted and scheduled from here."""

    name: ClassVar[str] = "kubeflow compile"
    follows: ClassVar[str] = "components"

    package: Annotated[Path | None, Field(description="File to write; null is artifacts/kubeflow/PIPELINE.yaml.")] = (
        None
    )

    def run(self) -> None:
        """Write the file and show its path and version."""
        from cxr.kubeflow.pipeline_package import read_package

        package = read_package(self.compile(self.package or default_package_path(self.pipeline)))
        self.show(f"{package.path}: {package.name}, version {package.version}")
