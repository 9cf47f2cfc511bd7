"""What the node is started with: who may send, how much and how long, and where reports go."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cxr.images.reading_options import ReadingOptions

MEBIBYTE = 1 << 20
_MAX_REQUEST_SECONDS = 10.0
_ADDRESSES = "dicom://TITLE@host:port, dicoms://TITLE@host:port (over TLS) or https://host/dicom-web"
TITLE_PATTERN = r"^[!-\[\]-~]([ -\[\]-~]{0,14}[!-\[\]-~])?$"
"""An application entity title (PS3.5, VR AE): 1 to 16 printable characters, no backslash, no blank at either end."""


@dataclass(frozen=True)
class TlsFiles:
    """Files for mutual TLS: both sides show a certificate that an authority has signed.

    Attributes:
        certificate: the node's certificate with the chain up to its authority, PEM.
        key: its private key, PEM.
        authorities: certificates of the authorities to trust, PEM.
    """

    certificate: Path
    key: Path
    authorities: Path


@dataclass(frozen=True)
class DestinationAddress:
    """Where reports go.

    Attributes:
        scheme: ``"dicom"`` (C-STORE), ``"dicoms"`` (C-STORE over TLS), ``"http"`` or ``"https"`` (STOW-RS).
        url: the whole address.
        title: the called title; empty for STOW-RS.
        host: its machine.
        port: its port; 0 for STOW-RS, where the address says it.
    """

    scheme: str
    url: str
    title: str
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> DestinationAddress:
        """Read an address.

        Args:
            text: ``dicom://TITLE@host:port``, ``dicoms://TITLE@host:port``, ``http://...`` or ``https://...``.

        Returns:
            Its parts.

        Raises:
            ValueError: if it is none of them.
        """
        try:
            parts = urlsplit(text)
            title, host, port = unquote(parts.username or ""), parts.hostname or "", parts.port or 0
        except ValueError:
            raise ValueError(_ADDRESSES) from None
        if parts.scheme in ("http", "https") and host and not title:
            return cls(parts.scheme, text, "", host, 0)
        if parts.scheme in ("dicom", "dicoms") and host and port and re.match(TITLE_PATTERN, title):
            return cls(parts.scheme, text, title, host, port)
        raise ValueError(_ADDRESSES)


@dataclass(frozen=True)
class ReceptionLimits:
    """What senders may do.

    Attributes:
        callers: calling titles that are accepted.
        megabytes: largest object, MiB.
        associations: most associations at once.
        idle_seconds: time after which an association without a message is ended.
        object_seconds: longest time in which an object arrives whole.
    """

    callers: tuple[str, ...]
    megabytes: float
    associations: int
    idle_seconds: float
    object_seconds: float

    @property
    def max_bytes(self) -> int:
        """Largest object, bytes."""
        return int(self.megabytes * MEBIBYTE)

    @property
    def request_seconds(self) -> float:
        """Longest time for a TLS handshake, and between a connection and its request for an association."""
        return min(_MAX_REQUEST_SECONDS, self.object_seconds)


@dataclass(frozen=True)
class QueueLimits:
    """How much the node keeps.

    Attributes:
        images: most images and reports that wait, dead letters included.
        min_free_bytes: free space that is left on the disk.
        keep_seconds: how long an image that was answered is known, so that it is not answered again.
    """

    images: int
    min_free_bytes: int
    keep_seconds: float


@dataclass(frozen=True)
class DeliveryPolicy:
    """How often a report is sent.

    Attributes:
        attempts: times that the destination may refuse a report before it becomes a dead letter.
        first_seconds: time before the second attempt; it doubles after each one.
        longest_seconds: longest time between two attempts.
        give_up_seconds: age at which a report becomes a dead letter while the destination is away.
    """

    attempts: int
    first_seconds: float
    longest_seconds: float
    give_up_seconds: float


@dataclass(frozen=True)
class NodeSettings:
    """Everything that the node is started with, besides the model.

    Attributes:
        folder: folder of the queue.
        title: the node's own title.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        status_host: address of the page with health and metrics.
        status_port: its port; 0 takes a free one.
        tls: files for TLS; None speaks without.
        reception: what senders may do.
        queue: how much is kept.
        destination: where reports go.
        delivery: how often a report is sent.
        capture: whether an image with the answer is sent beside the report.
        deidentified: whether reports leave out what identifies a patient.
        options: what is accepted when an image is read.
        read_seconds: longest time to read an image.
    """

    folder: Path
    title: str
    host: str
    port: int
    status_host: str
    status_port: int
    tls: TlsFiles | None
    reception: ReceptionLimits
    queue: QueueLimits
    destination: DestinationAddress
    delivery: DeliveryPolicy
    capture: bool
    deidentified: bool
    options: ReadingOptions
    read_seconds: float
