"""Components: write the components of the steps as files, for people who build their own pipelines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.errors import MissingInputError
from cxr.kubeflow.actions.base import Action


class WriteComponents(Action):
    """Write component.yaml of every step that runs in a container."""

    name: ClassVar[str] = "kubeflow components"

    params: Annotated[Path, Field(description="Parameter file with the models; some steps read all of them.")] = Path(
        "params.yaml"
    )
    folder: Annotated[Path, Field(description="Folder to write STEP/component.yaml into.")] = Path("components")

    def run(self) -> None:
        """Write the files and show their paths."""
        from cxr.kubeflow.components import write_components
        from cxr.kubeflow.pipeline_graph import PipelineGraph
        from cxr.steps.parameters import read_parameter_file

        if not self.params.is_file():
            raise MissingInputError(f"expected a parameter file, received params={self.params}; give --params FILE")
        sections = read_parameter_file(self.params)
        containers = {**(sections.get("containers") or {}), "transfer": False, "regions": True, "remote": None}
        graph = PipelineGraph({**sections, "containers": containers})
        models = {"models": tuple(graph.models), "regions": tuple(graph.detectors)}
        self.show(*map(str, write_components(self.folder, models)))
