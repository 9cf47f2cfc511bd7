"""Files of the repository that are kept with each registered version, so that it can be made again."""

from __future__ import annotations

LOCKS = ("dvc.lock", "transfer/dvc.lock")
"""DVC's lock files: the hashes of all inputs and outputs of each stage."""

PARAMETERS, POINTER = "params.yaml", "data.dvc"
"""The parameter file, and DVC's pointer to the data."""

FILES = (PARAMETERS, POINTER, *LOCKS)
"""All of them; a record holds them as they were at registration, under the same paths."""
