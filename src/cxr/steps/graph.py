"""Step graph: write the generated parts of ``dvc.yaml``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.errors import MissingInputError
from cxr.steps.base import Step


class WriteGraph(Step):
    """Write the generated parts of dvc.yaml: the models in the lists of metrics and plots."""

    name: ClassVar[str] = "graph"
    follows: ClassVar[str] = "results"
    sections: ClassVar[tuple[str, ...]] = ()

    params: Annotated[Path, Field(description="Parameter file with the models.")] = Path("params.yaml")
    graph: Annotated[Path, Field(description="Graph of the models that are trained from their seed.")] = Path(
        "dvc.yaml"
    )

    def run(self) -> None:
        """Read the graph and write it with the current lists."""
        from cxr.files import write_text
        from cxr.lineage.dvc_graph import with_models
        from cxr.steps.parameters import read_parameter_file

        for path in (self.params, self.graph):
            if not path.is_file():
                raise MissingInputError(f"expected a file, received {path}; run the command in the root of the project")
        models = list(read_parameter_file(self.params)["models"])
        write_text(self.graph, with_models(self.graph.read_text(encoding="utf-8"), models))
        self.show(str(self.graph))
