"""Graph: write the generated parts of ``dvc.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.errors import MissingInputError
from cxr.steps.base import Step


class WriteGraph(Step):
    """Write the generated parts of dvc.yaml: the code that each stage depends on, and the lists of models."""

    name: ClassVar[str] = "graph"
    follows: ClassVar[str] = "results"
    sections: ClassVar[tuple[str, ...]] = ()

    params: Annotated[Path, Field(description="Parameter file with the models.")] = Path("params.yaml")
    graph: Annotated[Path, Field(description="Graph of the models that are trained from their seed.")] = Path(
        "dvc.yaml"
    )
    transfer_graph: Annotated[Path, Field(description="Graph of the models that start from pretrained weights.")] = (
        Path("transfer/dvc.yaml")
    )
    regions_graph: Annotated[Path, Field(description="Graph of the detectors of opacities.")] = Path("regions/dvc.yaml")
    source: Annotated[Path, Field(description="Folder that holds the package.")] = Path("src")

    def run(self) -> None:
        """Read the graphs and write them with current lists."""
        from cxr.files import write_text
        from cxr.lineage.dvc_graph import with_code, with_models
        from cxr.steps.parameters import read_parameter_file

        for path in (self.params, self.graph, self.transfer_graph, self.regions_graph):
            if not path.is_file():
                raise MissingInputError(f"expected a file, received {path}; run the command in the root of the project")
        models = list(read_parameter_file(self.params)["models"])
        graphs = (self.graph, self.transfer_graph, self.regions_graph)
        texts = {graph: with_code(graph.read_text(encoding="utf-8"), self.source) for graph in graphs}
        texts[self.graph] = with_models(texts[self.graph], models)
        for path, text in texts.items():
            write_text(path, text)
            self.show(str(path))
