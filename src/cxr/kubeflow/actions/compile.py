"""Compile: write a pipeline, with the values of the parameter file, as one file for Kubeflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.kubeflow.actions.base import CompilingAction, default_package_path


class CompilePackage(CompilingAction):
    """Write a pipeline as a file, or one for each run, to upload by hand, or to submit and schedule from here."""

    name: ClassVar[str] = "kubeflow compile"
    follows: ClassVar[str] = "components"

    package: Annotated[Path | None, Field(description="File to write; null is artifacts/kubeflow/PIPELINE.yaml.")] = (
        None
    )

    def run(self) -> None:
        """Write the file, or one for each run, and show paths and versions."""
        from cxr.kubeflow.pipeline_package import read_package

        for file in self.compile(self.package or default_package_path(self.pipeline)):
            package = read_package(file)
            models = f", models {', '.join(package.models)}" if package.models else ""
            self.show(f"{file}: {package.name}, version {package.version}{models}")
