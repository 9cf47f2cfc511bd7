"""The content of a model's files: what makes two trainings, evaluations or versions the same one."""

from __future__ import annotations

import json
from pathlib import Path

from cxr.files import METADATA_FILE

PIPELINE_RUN = "pipeline_run"
"""Field of the metadata that is not part of the content: each run of a pipeline fits its ensemble anew."""


def read_content(path: Path) -> bytes:
    """Read a file; of metadata, all but the name of the pipeline run that wrote it.

    Args:
        path: the file.

    Returns:
        Bytes that are equal for equal content. Metadata without a pipeline run are returned as they are in the file.
    """
    data = path.read_bytes()
    if path.name != METADATA_FILE:
        return data
    values = json.loads(
        data, object_hook=lambda values: {**values, PIPELINE_RUN: None} if PIPELINE_RUN in values else values
    )
    return f"{json.dumps(values, indent=2)}\n".encode()
