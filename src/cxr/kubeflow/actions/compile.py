"""Compile: write a pipeline, with the values of the parameter file, as one file for Kubeflow."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.kubeflow.actions.base import Compiled, package_path


class Compile(Compiled):
    """Write a pipeline as one file that can be uploaded by hand, or submitted and scheduled from here."""

    name: ClassVar[str] = "kubeflow compile"

    package: Annotated[Path | None, Field(description="File to write; null is artifacts/kubeflow/PIPELINE.yaml.")] = (
        None
    )

    def run(self) -> None:
        """Write the file and say where it is."""
        from cxr.kubeflow.pipeline_package import read_package

        written = read_package(self.compiled(self.package or package_path(self.pipeline)))
        self.show(f"{written.path}: {written.name}, version {written.version}")
