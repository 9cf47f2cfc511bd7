"""Bodies of requests and responses, with their descriptions and examples for OpenAPI."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.inference.reference.refusals import REASONS
from cxr.models.prediction_sets import UNCERTAIN

EXAMPLE_IMAGE = "/9j/4AAQSkZJRgABAQEASABIAAD/2wBD"
Base64Image = Annotated[
    str,
    Field(
        description="One image (JPEG, PNG or DICOM) in base64. Line breaks, the head of a data URL "
        "(`data:image/png;base64,`), the URL-safe alphabet and missing padding are accepted.",
        json_schema_extra={"contentEncoding": "base64", "examples": [EXAMPLE_IMAGE]},
    ),
]


class ImagesRequest(BaseModel):
    """Several images at once."""

    model_config = ConfigDict(extra="forbid", strict=True)

    images: list[Base64Image] = Field(min_length=1, description="The images; answers come in the same order.")


class KServeInstance(BaseModel):
    """An image in KServe's V1 protocol."""

    model_config = ConfigDict(extra="forbid", strict=True)

    b64: Base64Image


class KServeRequest(BaseModel):
    """Several images in KServe's V1 protocol."""

    model_config = ConfigDict(extra="forbid", strict=True)

    instances: list[KServeInstance] = Field(min_length=1, description="The images; answers come in the same order.")


class RefusalDetail(BaseModel):
    """Why a readable image has no prediction: it does not look like a chest radiograph."""

    kind: str = Field(description=f"One of {', '.join(f'`{kind}`' for kind in REASONS)}.", examples=["coloured"])
    detail: str = Field(description="What the image looks like, and what to do.")


class ImageProblem(BaseModel):
    """Why one of several images could not be read, or what is unusual about it."""

    problem: str = Field(description="Kind of problem, for programs.", examples=["truncated"])
    detail: str = Field(description="What was expected and what was received.")


class RegionResult(BaseModel):
    """A box that the detector draws around an opacity, in pixels of the image as it was sent."""

    x: float = Field(description="Left edge.", examples=[212.4])
    y: float = Field(description="Upper edge.", examples=[301.0])
    width: float = Field(gt=0, description="Columns.", examples=[180.2])
    height: float = Field(gt=0, description="Rows.", examples=[240.5])
    score: float = Field(ge=0, le=1, description="Higher is surer; it is no calibrated probability.", examples=[0.71])


class RegionsModel(BaseModel):
    """The detector that drew all boxes of a response."""

    name: str | None = Field(
        description="Name of the registered detector; null for one from a folder.", examples=["pneumonia-regions"]
    )
    version: str | None = Field(description="Its number; null for a detector from a folder.", examples=["2"])
    alias: str | None = Field(description="Alias that the version was found by.", examples=["champion"])
    model: str = Field(description="Name of the detector.", examples=["retinanet_lite0"])
    trained_on: str = Field(description="`patients`, or `phantom`: such boxes say nothing about patients.")
    threshold: float | None = Field(description="Lowest score of a box, chosen on validation.", examples=[0.35])
    banner: str | None = Field(description="A notice that people must see beside each box.")


class ImageResult(BaseModel):
    """The result for one image. If there is no probability, either `refusal` or `error` says why."""

    label: Annotated[str, Field(json_schema_extra={"enum": [NORMAL, PNEUMONIA, UNCERTAIN]})] | None = Field(
        description="`PNEUMONIA` if the probability is at or above the threshold. A version that was evaluated with a "
        "coverage says `UNCERTAIN` instead where both classes fit the image, or neither.",
        examples=[PNEUMONIA],
    )
    probability: float | None = Field(ge=0, le=1, description="Calibrated probability of pneumonia.", examples=[0.93])
    threshold: float | None = Field(
        description="Operating point of this version, chosen on validation.", examples=[0.41]
    )
    refusal: RefusalDetail | None = Field(description="Why a readable image has no prediction.")
    error: ImageProblem | None = Field(description="Why the image could not be read.")
    warnings: list[ImageProblem] | None = Field(
        default=None, description="Only for an image that was read although it is unusual: what is unusual."
    )
    regions: list[RegionResult] | None = Field(
        default=None,
        description="Only with `regions=true`: the boxes by falling score; empty if no opacity is above the threshold; "
        "null for an image without a probability, and as long as there is no detector.",
    )


class PredictionsResponse(BaseModel):
    """The results, and the version that predicted all of them."""

    model_config = ConfigDict(protected_namespaces=())

    predictions: list[ImageResult] = Field(description="One per image, in the order of the request.")
    version: str | None = Field(description="Number in the registry; null for a model from a folder.", examples=["3"])
    alias: str | None = Field(description="Alias that the version was found by.", examples=["champion"])
    model: str = Field(description="Name of the model.", examples=["three_block"])
    banner: str | None = Field(description="A notice that people must see beside each prediction.")
    request_id: str = Field(description="Name of this request, as in the header `X-Request-ID`.")
    regions_model: RegionsModel | None = Field(
        default=None, description="Only with `regions=true`: the detector; null if there is none."
    )


class HealthResponse(BaseModel):
    """The service is alive."""

    status: Literal["ok"] = "ok"
    version: str | None = Field(description="The version that answers.")
    problem: str | None = Field(description="Why the version that has the alias does not answer.")


class ReadyResponse(BaseModel):
    """The service can answer."""

    status: Literal["ready"] = "ready"
    version: str | None = Field(description="The version that answers.")


class VersionResponse(BaseModel):
    """The version that answers."""

    registered_name: str | None = Field(description="Name of the registered model; null for a model from a folder.")
    version: str | None = Field(description="Its number.")
    alias: str | None = Field(description="Alias that it was found by.")
    model: str = Field(description="Name of the model.")
    threshold: float | None = Field(description="Its operating point on the calibrated probability.")
    since: datetime = Field(description="When this worker began to answer with it.")
    banner: str | None = Field(description="A notice that people must see beside each prediction.")
    problem: str | None = Field(description="Why the version that has the alias does not answer.")
    regions_model: RegionsModel | None = Field(default=None, description="The detector that draws boxes, if any.")
    regions_problem: str | None = Field(
        default=None, description="Why the version of the detector that has the alias does not answer, if so."
    )


class WebhookResponse(BaseModel):
    """What the service does about a message."""

    done: str = Field(examples=["looking at the aliases", "nothing"])


class ModelsResponse(BaseModel):
    """Names of the model in KServe's V1 protocol."""

    models: list[str]


class ModelStateResponse(BaseModel):
    """State of the model in KServe's V1 protocol."""

    name: str
    ready: bool
