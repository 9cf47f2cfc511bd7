"""Fields of every step that answers with a model: a registered version, or a model of a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from cxr.steps.base import Reads
from cxr.steps.registry_fields import Registered

if TYPE_CHECKING:
    from cxr.serving.model_source import Choice

Fallback = Annotated[
    str | None,
    Field(description="Alias to take, with a notice, while nobody has had the other one yet; null for none."),
]


class Answering(Registered):
    """A step that answers with the version of an alias, or with a model of a folder."""

    model: Annotated[
        Path | None,
        Reads("Model", optional=True),
        Field(description="Folder of a trained model or of an ensemble's model, instead of a registered version."),
    ] = None
    evaluation: Annotated[
        Path | None,
        Reads("Evaluation", optional=True),
        Field(description="Folder of its evaluation; null finds it beside the models (../../evaluations/NAME)."),
    ] = None
    reference: Annotated[
        Path | None,
        Reads("Reference", optional=True),
        Field(description="Folder of what its training films look like; null: ../../reference, if it is there."),
    ] = None
    alias: Annotated[str, Field(min_length=1, description="Alias of the version that answers.")] = "champion"
    fallback: Fallback = None


class AnsweringOnce(Answering):
    """Such a step that chooses the version when it begins, and may be told its number."""

    version: Annotated[
        str | None, Field(pattern=r"^[0-9]+$", description="Number of the version; null takes the one with the alias.")
    ] = None

    def choice(self) -> Choice:
        """Find out which model is to answer, without loading it.

        Returns:
            The model of the folder, or the version by number or alias.

        Raises:
            MissingInputError: if a file or the local store isn't there, or the model isn't evaluated.
            RegistryError: if the store doesn't answer, or nobody has the alias.
        """
        from cxr.serving.model_source import from_folder, registered

        if self.model is not None:
            return from_folder(self.model, self.evaluation, self.reference)
        return registered(
            self.tracking_uri, self.registered_name, version=self.version, alias=self.alias, fallback=self.fallback
        )
