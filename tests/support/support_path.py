"""Lets another Python process import these support modules."""

from __future__ import annotations

import os
from pathlib import Path


def support_path(*folders: Path) -> dict[str, str]:
    """Make the variable `PYTHONPATH` of a process that imports `support`; `folders` come before it."""
    paths = [*map(str, folders), str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}
