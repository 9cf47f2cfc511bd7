"""Components: write the components of the steps down, for people who wire pipelines of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.errors import MissingInputError
from cxr.kubeflow.actions.base import Action


class Components(Action):
    """Write component.yaml of every step that runs in a container."""

    name: ClassVar[str] = "kubeflow components"

    params: Annotated[Path, Field(description="Parameter file with the models; some steps read all of them.")] = Path(
        "params.yaml"
    )
    folder: Annotated[Path, Field(description="Folder to write STEP/component.yaml into.")] = Path("components")

    def run(self) -> None:
        """Write the files and say which."""
        from cxr.kubeflow.components import write
        from cxr.kubeflow.pipeline_graph import Graph
        from cxr.steps.parameters import read_sections

        if not self.params.is_file():
            raise MissingInputError(f"expected a parameter file, received params={self.params}; give --params FILE")
        sections = read_sections(self.params)
        containers = {**(sections.get("containers") or {}), "transfer": False, "remote": None}
        models = tuple(Graph({**sections, "containers": containers}).models)
        self.show(*map(str, write(self.folder, models)))
