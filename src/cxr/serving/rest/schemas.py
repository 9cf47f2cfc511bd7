"""Messages of the service as they are on the wire, with their descriptions and examples for OpenAPI."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cxr.data.dataset import NORMAL, PNEUMONIA

EXAMPLE = "/9j/4AAQSkZJRgABAQEASABIAAD/2wBD"
Base64 = Annotated[
    str,
    Field(
        description="One image (JPEG, PNG or DICOM) in base64.",
        json_schema_extra={"contentEncoding": "base64", "examples": [EXAMPLE]},
    ),
]


class Images(BaseModel):
    """Several images at once."""

    model_config = ConfigDict(extra="forbid", strict=True)

    images: list[Base64] = Field(min_length=1, description="The images; answers come in the same order.")


class Instance(BaseModel):
    """An image in KServe's first protocol."""

    model_config = ConfigDict(extra="forbid", strict=True)

    b64: Base64


class Instances(BaseModel):
    """Several images in KServe's first protocol."""

    model_config = ConfigDict(extra="forbid", strict=True)

    instances: list[Instance] = Field(min_length=1, description="The images; answers come in the same order.")


class Refused(BaseModel):
    """Why there is no answer for a picture that could be read: it looks like no chest film."""

    kind: str = Field(description="`coloured`, `inverted`, `turned` or `no_chest_film`.", examples=["coloured"])
    detail: str = Field(description="What it looks like, and what to do.")


class Unreadable(BaseModel):
    """Why an image of several could not be read."""

    problem: str = Field(description="Kind of problem, for programs.", examples=["truncated"])
    detail: str = Field(description="What was expected and what was received.")


class ImageAnswer(BaseModel):
    """The answer for one image. Without a probability, either `refusal` or `error` says why."""

    label: Annotated[str, Field(json_schema_extra={"enum": [NORMAL, PNEUMONIA]})] | None = Field(
        description="`PNEUMONIA` where the probability is at or above the threshold.", examples=[PNEUMONIA]
    )
    probability: float | None = Field(ge=0, le=1, description="Calibrated probability of pneumonia.", examples=[0.93])
    threshold: float | None = Field(
        description="Operating point of this version, chosen on validation.", examples=[0.41]
    )
    refusal: Refused | None = Field(description="Why a picture that could be read has no answer.")
    error: Unreadable | None = Field(description="Why an image could not be read.")


class Predictions(BaseModel):
    """Answers, and the version that gave all of them."""

    model_config = ConfigDict(protected_namespaces=())

    predictions: list[ImageAnswer] = Field(description="One per image, in the order of the request.")
    version: str | None = Field(description="Number in the registry; null for a model of a folder.", examples=["3"])
    alias: str | None = Field(description="Alias that the version was found by.", examples=["champion"])
    model: str = Field(description="Name of the model.", examples=["three_block"])
    banner: str | None = Field(description="What people must be told beside each answer.")
    request_id: str = Field(description="Name of this request, as in the header `X-Request-ID`.")


class Health(BaseModel):
    """The service is alive."""

    status: Literal["ok"] = "ok"
    version: str | None = Field(description="Version that answers.")
    problem: str | None = Field(description="Why the version that has the alias isn't the one that answers.")


class Ready(BaseModel):
    """The service can answer."""

    status: Literal["ready"] = "ready"
    version: str | None = Field(description="Version that answers.")


class Version(BaseModel):
    """The version that answers."""

    registered_name: str | None = Field(description="Name of the registered model; null for a model of a folder.")
    version: str | None = Field(description="Its number.")
    alias: str | None = Field(description="The alias that it was found by.")
    model: str = Field(description="Name of the model.")
    threshold: float | None = Field(description="Its operating point on the calibrated probability.")
    since: datetime = Field(description="When this worker began to answer with it.")
    banner: str | None = Field(description="What people must be told beside each answer.")
    problem: str | None = Field(description="Why the version that has the alias isn't the one that answers.")


class Told(BaseModel):
    """What was done about a message."""

    done: str = Field(examples=["looking at the aliases", "nothing"])


class Models(BaseModel):
    """Names by which KServe's first protocol knows the model."""

    models: list[str]


class ModelState(BaseModel):
    """State of the model in KServe's first protocol."""

    name: str
    ready: bool
