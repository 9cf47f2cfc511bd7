"""Fields of every step that predicts with a model: a registered version, or a model of a folder."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Self

from pydantic import Field, model_validator

from cxr.steps.base import Input
from cxr.steps.registry_fields import VersionFilesStep

if TYPE_CHECKING:
    from cxr.serving.model_choice import ModelChoice
    from cxr.serving.model_source import ModelSource
    from cxr.serving.served_model import ServedModel

Fallback = Annotated[
    str | None,
    Field(description="Alias to use, with a notice, until a version has the other alias; null for none."),
]


class ModelStep(VersionFilesStep):
    """A step that predicts with the version that has an alias, or with a model of a folder."""

    model: Annotated[
        Path | None,
        Input("Model", optional=True),
        Field(description="Folder of a trained model or of an ensemble's model, instead of a registered version."),
    ] = None
    evaluation: Annotated[
        Path | None,
        Input("Evaluation", optional=True),
        Field(description="Folder of its evaluation; null finds it beside the models (../../evaluations/NAME)."),
    ] = None
    reference: Annotated[
        Path | None,
        Input("Reference", optional=True),
        Field(description="Folder of the statistics of its training images; null: ../../reference, if it exists."),
    ] = None
    alias: Annotated[str, Field(min_length=1, description="Alias of the version that predicts.")] = "champion"
    fallback: Fallback = None

    @model_validator(mode="after")
    def _sign_versions_only(self) -> Self:
        folder = next((name for name in ("model", "regions_model") if getattr(self, name, None) is not None), None)
        if folder is not None and self.require_signature is not None:
            raise ValueError(
                f"expected a registered version where a signature is required, received {folder}="
                f"{getattr(self, folder)}, which has none, and require_signature={self.require_signature}; leave one "
                "of them out"
            )
        return self


class FixedModelStep(ModelStep):
    """A step that chooses the model once, when it starts; the version may also be given by its number."""

    version: Annotated[
        str | None, Field(pattern=r"^[0-9]+$", description="Number of the version; null: the version with the alias.")
    ] = None

    def choose_model(self) -> ModelSource[ServedModel]:
        """Choose the model, without loading it.

        Returns:
            The model of the folder, or the version by number or alias.

        Raises:
            MissingInputError: if a file or the local store doesn't exist, or the model isn't evaluated.
            RegistryError: if the store doesn't answer, or no version has the alias.
        """
        from cxr.serving.model_folder import folder_source
        from cxr.serving.model_source import registry_source

        if self.model is not None:
            return folder_source(self.model, self.evaluation, self.reference)
        return registry_source(
            self.store, self.registered_name, version=self.version, alias=self.alias, fallback=self.fallback
        )


class RegionsStep(ModelStep):
    """A step that also draws boxes, with the version of the detector that has the alias, or one of a folder."""

    regions_name: Annotated[
        str | None,
        Field(min_length=1, description="Name of the registered detector, which draws boxes; null: no boxes."),
    ] = "pneumonia-regions"
    regions_model: Annotated[
        Path | None,
        Input("Model", optional=True),
        Field(description="Folder of a trained detector, instead of a registered version."),
    ] = None
    regions_evaluation: Annotated[
        Path | None,
        Input("Evaluation", optional=True),
        Field(description="Folder of its evaluation; null finds it beside the detectors (../../evaluations/NAME)."),
    ] = None

    @property
    def choice(self) -> ModelChoice:
        """The classifier and the detector that these fields name."""
        from cxr.serving.model_choice import ModelChoice

        return ModelChoice(**{field.name: getattr(self, field.name) for field in fields(ModelChoice)})
