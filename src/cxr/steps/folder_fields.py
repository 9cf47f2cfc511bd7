"""Folders that several steps of a pipeline read, as types of their fields."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from cxr.steps.base import Input

ManifestFolder = Annotated[Path, Input("Manifest"), Field(description="Folder of the manifest.")]
SplitFolder = Annotated[Path, Input("Splits"), Field(description="Folder of the split.")]
PreparedFolder = Annotated[Path, Input("Prepared"), Field(description="Folder of the prepared images.")]
RecipeFolders = Annotated[
    Path, Input("Prepared"), Field(description="Folder with one folder of prepared images per recipe.")
]
ModelFolders = Annotated[
    Path, Input("Models", item_kind="Model"), Field(description="Folder with one folder per trained model.")
]
EvaluationFolders = Annotated[
    Path,
    Input("Evaluations", item_kind="Evaluation"),
    Field(description="Folder with one folder per evaluation, named as the models."),
]
TransferFolder = Annotated[
    Path | None,
    Input("Transfer", optional=True),
    Field(description="Folder with models/ and evaluations/ of the transfer networks; null leaves them out."),
]
