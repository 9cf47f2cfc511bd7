"""Node: receive radiographs from a PACS, answer them with the champion, and send the reports back."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from cxr.pacs.settings import TITLE_PATTERN, DestinationAddress
from cxr.steps.model_fields import RegionsStep
from cxr.steps.reading_fields import ReadingStep

if TYPE_CHECKING:
    from cxr.pacs.settings import NodeSettings, TlsFiles
    from cxr.serving.model_provider import DetectorProvider, ModelProvider

Title = Annotated[str, StringConstraints(pattern=TITLE_PATTERN)]


def _check_destination(value: str) -> str:
    DestinationAddress.parse(value)
    return value


class Node(RegionsStep, ReadingStep):
    """Receive radiographs from a PACS over DICOM, answer them with the champion, and send the reports back."""

    name: ClassVar[str] = "node"
    follows: ClassVar[str] = "compare"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "register", "reading", "node")

    folder: Annotated[
        Path, Field(description="Folder of the queue: images without an answer, reports that wait, dead letters.")
    ] = Path("artifacts/node")
    title: Annotated[Title, Field(description="Application entity title of this node.")] = "CXR"
    host: Annotated[
        str, Field(min_length=1, description="Address to listen on; 127.0.0.1 allows this machine only.")
    ] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = 11112
    callers: Annotated[
        list[Title], Field(min_length=1, description="Titles of the nodes that may send; all others are rejected.")
    ] = ["PACS"]  # noqa: RUF012  # pydantic copies it
    destination: Annotated[
        str,
        AfterValidator(_check_destination),
        Field(
            description="Where reports go: dicom://TITLE@host:port (C-STORE), dicoms:// (over TLS), or "
            "https://host/dicom-web (STOW-RS; credentials: CXR_DICOMWEB_USER and CXR_DICOMWEB_PASSWORD, or "
            "CXR_DICOMWEB_TOKEN)."
        ),
    ] = "dicom://PACS@127.0.0.1:104"
    certificate: Annotated[
        Path | None, Field(description="Certificate of this node, PEM; null receives without TLS.")
    ] = None
    key: Annotated[Path | None, Field(description="Private key of that certificate, PEM.")] = None
    authorities: Annotated[
        Path | None, Field(description="Authorities that must have signed the certificates of all peers, PEM.")
    ] = None
    capture: Annotated[
        bool,
        Field(description="Also send an image with the answer, Grad-CAM and boxes, for viewers that show no reports."),
    ] = False
    deidentified: Annotated[bool, Field(description="Leave what identifies a patient out of reports.")] = False
    max_megabytes: Annotated[float, Field(gt=0, le=1024, description="Largest object, MiB.")] = 128.0
    max_megapixels: Annotated[float, Field(gt=0, le=500, description="Largest image, millions of pixels.")] = 50.0
    read_seconds: Annotated[float, Field(gt=0, le=600, description="Longest time to read an image.")] = 10.0
    associations: Annotated[int, Field(ge=1, le=64, description="Most associations at once.")] = 8
    idle_seconds: Annotated[
        float, Field(gt=0, le=3600, description="Time after which an association without a message is ended.")
    ] = 60.0
    object_seconds: Annotated[
        float, Field(gt=0, le=3600, description="Longest time in which an object arrives whole.")
    ] = 120.0
    max_waiting: Annotated[
        int, Field(ge=1, le=1_000_000, description="Most images in the queue; further ones are not accepted.")
    ] = 5000
    min_free_megabytes: Annotated[
        float, Field(ge=0, description="Free disk space that is left; images beyond it are not accepted.")
    ] = 1024.0
    keep_days: Annotated[
        float, Field(gt=0, le=3650, description="Days in which an image that was answered is not answered again.")
    ] = 30.0
    attempts: Annotated[
        int, Field(ge=1, le=100, description="Times that the destination may refuse a report until it is given up.")
    ] = 5
    retry_seconds: Annotated[
        float, Field(gt=0, le=3600, description="Time before the second attempt; it doubles after each one.")
    ] = 5.0
    longest_retry_seconds: Annotated[float, Field(gt=0, le=86400, description="Longest time between two attempts.")] = (
        300.0
    )
    give_up_hours: Annotated[
        float, Field(gt=0, le=8760, description="Age at which reports are given up while the destination is away.")
    ] = 72.0
    seconds: Annotated[float, Field(gt=0, le=3600, description="Seconds between two polls of the aliases.")] = 5.0
    status_host: Annotated[str, Field(min_length=1, description="Address of /health and /metrics.")] = "127.0.0.1"
    status_port: Annotated[int, Field(ge=0, le=65535, description="Their port; 0 takes a free one.")] = 8766

    @model_validator(mode="after")
    def _tls_is_complete(self) -> Self:
        files = {name: getattr(self, name) for name in ("certificate", "key", "authorities")}
        received = ", ".join(f"{name}={path}" for name, path in files.items())
        if len({path is None for path in files.values()}) > 1:
            raise ValueError(f"expected all three files for TLS or none, received {received}; give the others, too")
        if self.destination.startswith("dicoms:") and self.certificate is None:
            raise ValueError(f"expected files for TLS with destination={self.destination}, received {received}")
        return self

    @model_validator(mode="after")
    def _captures_show_the_detector(self) -> Self:
        if self.regions_model is not None and not self.capture:
            raise ValueError(
                f"expected capture=true with regions_model, because reports have no boxes, received regions_model="
                f"{self.regions_model} and capture=false; set capture=true, or leave regions_model out"
            )
        return self

    def settings(self) -> NodeSettings:
        """Collect the settings of the node.

        Returns:
            Everything besides the model.
        """
        from cxr.pacs.settings import (
            MEBIBYTE,
            DeliveryPolicy,
            NodeSettings,
            QueueLimits,
            ReceptionLimits,
        )

        return NodeSettings(
            folder=self.folder,
            title=self.title,
            host=self.host,
            port=self.port,
            status_host=self.status_host,
            status_port=self.status_port,
            tls=self._tls_files(),
            reception=ReceptionLimits(
                callers=tuple(self.callers),
                megabytes=self.max_megabytes,
                associations=self.associations,
                idle_seconds=self.idle_seconds,
                object_seconds=self.object_seconds,
            ),
            queue=QueueLimits(
                images=self.max_waiting,
                min_free_bytes=int(self.min_free_megabytes * MEBIBYTE),
                keep_seconds=self.keep_days * 86400,
            ),
            destination=DestinationAddress.parse(self.destination),
            delivery=DeliveryPolicy(
                attempts=self.attempts,
                first_seconds=self.retry_seconds,
                longest_seconds=self.longest_retry_seconds,
                give_up_seconds=self.give_up_hours * 3600,
            ),
            capture=self.capture,
            deidentified=self.deidentified,
            options=self.reading_options(int(self.max_megapixels * 1_000_000)),
            read_seconds=self.read_seconds,
        )

    def _tls_files(self) -> TlsFiles | None:
        from cxr.pacs.settings import TlsFiles

        if self.certificate is None or self.key is None or self.authorities is None:
            return None
        return TlsFiles(self.certificate, self.key, self.authorities)

    def run(self) -> None:
        """Receive, answer and deliver until interrupted."""
        from cxr.pacs.node import run_node

        run_node(self.settings(), self._open_models)

    def _open_models(self, stack: ExitStack) -> tuple[ModelProvider, DetectorProvider | None]:
        """Load the model, and the detector if captures are sent, and follow their aliases."""
        from cxr.serving.current_models import CurrentModels, log_change
        from cxr.serving.detector_source import log_capture_banners

        models = CurrentModels(self.store, self.choice, self.seconds, draws_boxes=self.capture, on_change=[log_change])
        log_capture_banners(models.classifier.current, models.served_detector)
        models.follow_aliases(stack)
        return models.classifier, models.detector
