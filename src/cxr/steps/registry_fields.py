"""Fields of every step that looks after a registered model."""

from __future__ import annotations

import sys
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.base import Step


class Registered(Step):
    """A step that reads or moves the aliases of a registered model."""

    sections: ClassVar[tuple[str, ...]] = ("tracking", "register")
    passed_over: ClassVar[frozenset[str]] = frozenset({"experiment", "include", "offline"})

    tracking_uri: Annotated[
        str, Field(min_length=1, description="Address of the MLflow store: sqlite:///FILE or http(s)://HOST.")
    ] = "sqlite:///mlflow.db"
    registered_name: Annotated[str, Field(min_length=1, description="Name of the registered model.")] = (
        "pneumonia-classifier"
    )

    def show(self, *lines: str) -> None:
        """Print an answer, which unlike the log goes to standard output.

        Args:
            lines: lines without their ends.
        """
        sys.stdout.writelines(f"{line}\n" for line in lines)
