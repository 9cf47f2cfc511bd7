"""Step code: list the code that the result of each step depends on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.errors import MissingInputError
from cxr.steps.base import Output, Step


class ListCode(Step):
    """List the code that the result of each step depends on, with its hashes, for the stages of dvc.yaml."""

    name: ClassVar[str] = "code"
    follows: ClassVar[str] = "graph"
    sections: ClassVar[tuple[str, ...]] = ()

    source: Annotated[Path, Field(description="Folder of the package.")] = Path("src/cxr")
    code: Annotated[Path, Output("Code"), Field(description="Folder of one list per step.")] = Path("artifacts/code")

    def run(self) -> None:
        """Follow the imports of each step and write the lists."""
        from cxr.files import whole_folder
        from cxr.lineage.step_code import write_step_code
        from cxr.steps.registry import find_commands

        if not (self.source / "steps").is_dir():
            raise MissingInputError(
                f"expected the folder of the package, received source={self.source}; run the command in the root of "
                "the project"
            )
        with whole_folder(self.code) as folder:
            write_step_code(find_commands(self.source / "steps"), self.source.parent, folder)
