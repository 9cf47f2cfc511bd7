"""Fields of every step that writes to MLflow."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.base import Step


class Tracked(Step):
    """A step whose figures and files also go to MLflow; where they go alters no output."""

    without_effect: ClassVar[tuple[str, ...]] = ("tracking",)

    tracking_uri: Annotated[
        str,
        Field(description="Address of the MLflow store: sqlite:///FILE, http(s)://HOST; empty logs nothing."),
    ] = "sqlite:///mlflow.db"
    experiment: Annotated[
        str,
        Field(min_length=1, description="MLflow experiment; runs on drawn phantoms go to one of their own."),
    ] = "pneumonia"
