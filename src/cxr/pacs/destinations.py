"""Where reports go: a DICOM node that stores them (C-STORE), or a DICOMweb server (STOW-RS)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from cxr.errors import DeliveryError, RefusedReportError
from cxr.pacs.library_messages import silence_libraries
from cxr.pacs.settings import NodeSettings
from cxr.pacs.storage_provider import OUT_OF_RESOURCES
from cxr.pacs.tls import make_context
from cxr.storage.dicomweb import read_credentials

CONNECT_SECONDS, RESPONSE_SECONDS = 10.0, 60.0
"""Longest time to reach the destination, and for it to respond."""
_SUCCESS, _WARNINGS = 0x0000, range(0xB000, 0xC000)
_OUT_OF_RESOURCES = range(OUT_OF_RESOURCES, OUT_OF_RESOURCES + 0x100)
_AWAY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""HTTP statuses that say nothing about a report."""


class Connection(Protocol):
    """A way to the destination that is open."""

    def send(self, report: Path) -> None:
        """Send a report.

        Args:
            report: the DICOM file.

        Raises:
            DeliveryError: if the destination does not answer, or cannot take anything at the moment.
            RefusedReportError: if it refuses this report.
        """


class Destination(ABC):
    """The place that reports are sent to."""

    @abstractmethod
    @contextmanager
    def connect(self, reports: Sequence[Path]) -> Iterator[Connection]:
        """Open a way for some reports.

        Args:
            reports: what is going to be sent.

        Yields:
            The connection.

        Raises:
            DeliveryError: if the destination cannot be reached.
        """


def open_destination(settings: NodeSettings) -> Destination:
    """Make the destination that the settings name; nothing is connected yet.

    Args:
        settings: settings of the node.

    Returns:
        The destination.

    Raises:
        ParameterError: if its files for TLS cannot be read.
    """
    is_dicom = settings.destination.scheme in ("dicom", "dicoms")
    return DicomDestination(settings) if is_dicom else DicomWebDestination(settings)


class DicomDestination(Destination):
    """A node that stores reports by C-STORE."""

    def __init__(self, settings: NodeSettings) -> None:
        """Read the files for TLS.

        Args:
            settings: settings of the node.

        Raises:
            ParameterError: if the files for TLS cannot be read.
        """
        silence_libraries()
        self._address, self._title = settings.destination, settings.title
        self._tls = None
        if settings.destination.scheme == "dicoms" and settings.tls is not None:
            self._tls = (make_context(settings.tls, server=False), settings.destination.host)

    @contextmanager
    def connect(self, reports: Sequence[Path]) -> Iterator[Connection]:
        """Open an association for the classes of some reports."""
        from pynetdicom import AE

        entity = AE(ae_title=self._title)
        entity.connection_timeout = entity.acse_timeout = CONNECT_SECONDS
        entity.dimse_timeout = entity.network_timeout = RESPONSE_SECONDS
        for sop_class, syntax in sorted({_read_class(report) for report in reports}):
            entity.add_requested_context(sop_class, syntax)
        try:
            association = entity.associate(
                self._address.host, self._address.port, ae_title=self._address.title, tls_args=self._tls
            )
        except OSError:
            raise DeliveryError("the name of its machine is not known") from None
        try:
            if association.is_rejected:
                raise DeliveryError("it rejects associations: it must know the title and the address of this node")
            stores_nothing = association.rejected_contexts and not association.accepted_contexts
            if not association.is_established and not stores_nothing:
                raise DeliveryError("it cannot be reached")
            yield _Association(association)
        finally:
            if association.is_established:
                association.release()


class _Association:
    def __init__(self, association: Any) -> None:
        self._association = association

    def send(self, report: Path) -> None:
        from pydicom import dcmread

        sop_class, syntax = _read_class(report)
        accepted = [
            (str(context.abstract_syntax), context.transfer_syntax[0])
            for context in self._association.accepted_contexts
        ]
        if (sop_class, syntax) not in accepted:
            raise RefusedReportError("it does not store this class")
        try:
            answer = self._association.send_c_store(dcmread(report))
        except RuntimeError:
            raise DeliveryError("it ended the association") from None
        status = answer.get("Status")
        if status is None:
            raise DeliveryError("it does not respond")
        if status in _OUT_OF_RESOURCES:
            raise DeliveryError(f"it is out of resources (status 0x{status:04X})")
        if status != _SUCCESS and status not in _WARNINGS:
            raise RefusedReportError(f"status 0x{status:04X}")


class DicomWebDestination(Destination):
    """A DICOMweb server that stores reports by STOW-RS. Connections go to it directly, through no proxy."""

    def __init__(self, settings: NodeSettings) -> None:
        """Prepare the requests.

        Args:
            settings: settings of the node.

        Raises:
            ParameterError: if the files for TLS cannot be read.
        """
        import requests
        from dicomweb_client.web import DICOMwebClient

        silence_libraries()
        session = requests.Session()
        session.trust_env = False  # a variable would replace the authorities
        if settings.tls is not None:
            make_context(settings.tls, server=False)  # says what is wrong with the files
            session.verify = str(settings.tls.authorities)
            session.cert = (str(settings.tls.certificate), str(settings.tls.key))
        session.auth = read_credentials()
        self._client = DICOMwebClient(
            settings.destination.url, session=session, timeout=(CONNECT_SECONDS, RESPONSE_SECONDS)
        )
        self._client.set_http_retry_params(retry=False)

    @contextmanager
    def connect(self, reports: Sequence[Path]) -> Iterator[Connection]:
        """Nothing is open between two requests."""
        yield self

    def send(self, report: Path) -> None:
        """Send a report in a request of its own."""
        import requests
        from pydicom import dcmread

        try:
            result = self._client.store_instances([dcmread(report)])
        except requests.HTTPError as error:
            status = error.response.status_code
            if status in _AWAY or status in (401, 403):
                raise DeliveryError(f"HTTP status {status}") from None
            raise RefusedReportError(f"HTTP status {status}") from None
        except requests.RequestException:
            raise DeliveryError("it cannot be reached") from None
        failed = result.get("FailedSOPSequence")
        if failed:
            raise RefusedReportError(f"failure reason 0x{int(failed[0].get('FailureReason', 0)):04X}")


def _read_class(report: Path) -> tuple[str, str]:
    """Class and transfer syntax of a report."""
    from pydicom.filereader import read_file_meta_info

    meta = read_file_meta_info(report)
    return str(meta.MediaStorageSOPClassUID), str(meta.TransferSyntaxUID)
