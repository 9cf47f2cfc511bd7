"""Radiographs of an archive that speaks DICOMweb: found with QIDO-RS, fetched one by one with WADO-RS.

UIDs say whose image it is. So no message and no log has one, and the client's own messages are never repeated.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from cxr.errors import SourceError, TransferError
from cxr.images.dicom.elements import is_uid

if TYPE_CHECKING:
    from requests import Response

MODALITIES = ("CR", "DX")
"""Modalities that are asked for: computed and digital radiography."""
TOKEN_VARIABLE, USER_VARIABLE, PASSWORD_VARIABLE = "CXR_DICOMWEB_TOKEN", "CXR_DICOMWEB_USER", "CXR_DICOMWEB_PASSWORD"
"""Environment variables with a bearer token, or with the name of a user and a password."""
MAX_CONNECTIONS = 4
"""Images that are fetched at the same time: an archive also serves the people who read films."""

_ATTEMPTS, _PAUSE_SECONDS = 4, 0.5
"""How often a request is sent, and the first pause between two of them; each later pause is twice as long."""
_TIMEOUT_SECONDS = (10, 60)
_PAGE = 500
_CHUNK_BYTES = 1 << 20
_OVERLOADED = frozenset({429, 500, 502, 503, 504})
_REFUSED = frozenset({401, 403})
_GONE = frozenset({404, 410})
_UID_TAGS = {"StudyInstanceUID": "0020000D", "SeriesInstanceUID": "0020000E", "SOPInstanceUID": "00080018"}
_DICOM = "application/dicom"

ResultT = TypeVar("ResultT")


@dataclass(frozen=True, order=True, repr=False)
class ArchivedImage:
    """Where an image stands in an archive.

    Attributes:
        study: UID of its study.
        series: UID of its series.
        instance: UID of the image.
    """

    study: str
    series: str
    instance: str

    @property
    def digest(self) -> str:
        """Name without identity: 24 hexadecimal digits of the SHA-256 of the image's UID."""
        return hashlib.sha256(self.instance.encode()).hexdigest()[:24]


class DicomwebArchive:
    """One archive. Several threads may fetch at once.

    Attributes:
        name: host of the archive, for messages.
    """

    def __init__(self, address: str) -> None:
        """Prepare the client; nothing is sent yet.

        Args:
            address: root of its services, such as ``https://host/dicom-web``. It holds no credentials; they are taken
                from environment variables.

        Raises:
            SourceError: if the address is none of HTTP, or holds credentials.
        """
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SourceError("expected an address of a DICOMweb service, such as https://host/dicom-web")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise SourceError(
                f"expected an address without user, password and query, received one for {parts.hostname}; set "
                f"{USER_VARIABLE} and {PASSWORD_VARIABLE}, or {TOKEN_VARIABLE}"
            )
        import requests
        from dicomweb_client.api import DICOMwebClient

        logging.getLogger("dicomweb_client").setLevel(logging.CRITICAL)  # it logs UIDs
        self.name = parts.netloc
        self._address = address.rstrip("/")
        self._session = requests.Session()
        self._session.auth = read_credentials()
        self._client = DICOMwebClient(self._address, session=self._session, timeout=_TIMEOUT_SECONDS)
        self._client.set_http_retry_params(retry=False)

    def find_images(self, *, study: str | None, since: str | None) -> list[ArchivedImage]:
        """Find the radiographs of one study, or of all studies since a date.

        Args:
            study: UID of the study; None for all.
            since: first date of the studies, ``YYYYMMDD``; None where ``study`` is given.

        Returns:
            The images, each once, sorted.

        Raises:
            SourceError: if the archive cannot be reached, denies access, or gives no valid answer.
        """
        images: set[ArchivedImage] = set()
        for modality in MODALITIES:
            for study_uid in [study] if study is not None else self._find_studies(modality, since):
                images.update(self._find_in_study(study_uid, modality))
        return sorted(images)

    def _find_studies(self, modality: str, since: str | None) -> Iterator[str]:
        filters = {"ModalitiesInStudy": modality, "StudyDate": f"{since}-"}
        for entry in self._pages(self._client.search_for_studies, filters):
            yield self._uid(entry, "StudyInstanceUID")

    def _find_in_study(self, study: str, modality: str) -> Iterator[ArchivedImage]:
        def search_for_series(**page: Any) -> Any:
            return self._client.search_for_series(study, **page)

        for entry in self._pages(search_for_series, {"Modality": modality}):
            series = self._uid(entry, "SeriesInstanceUID")

            def search_for_instances(series: str = series, **page: Any) -> Any:
                return self._client.search_for_instances(study, series, **page)

            for instance in self._pages(search_for_instances, {}):
                yield ArchivedImage(study, series, self._uid(instance, "SOPInstanceUID"))

    def _pages(self, search: Callable[..., Any], filters: Mapping[str, str]) -> Iterator[Mapping[str, Any]]:
        """Ask page after page, until one brings nothing new."""
        offset = 0
        known: set[str] = set()
        while True:
            try:
                page = self._repeat(partial(search, search_filters=dict(filters), limit=_PAGE, offset=offset))
            except FileNotFoundError:
                raise SourceError(
                    f"expected DICOMweb at the archive {self.name}, received status=404; check address and study"
                ) from None
            fresh = [entry for entry in page if str(entry) not in known] if isinstance(page, list) else []
            yield from fresh
            if len(page) < _PAGE or not fresh:
                return
            known.update(str(entry) for entry in fresh)
            offset += len(page)

    def _uid(self, entry: object, keyword: str) -> str:
        try:
            uid = entry[_UID_TAGS[keyword]]["Value"][0]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            uid = None
        if not isinstance(uid, str) or not is_uid(uid):
            raise SourceError(
                f"expected a valid {keyword} in each answer of the archive {self.name}, received another value; "
                "check the address"
            )
        return uid

    def fetch(self, image: ArchivedImage, max_bytes: int) -> bytes:
        """Fetch one image as it is stored.

        Args:
            image: one of :meth:`find_images`.
            max_bytes: largest size that is loaded.

        Returns:
            The content of the DICOM file.

        Raises:
            FileNotFoundError: if the archive has it no longer.
            OverflowError: if it is larger.
            TransferError: if it does not arrive whole, however often it is asked for.
            SourceError: if the archive cannot be reached, or denies access.
        """
        path = f"/studies/{image.study}/series/{image.series}/instances/{image.instance}"
        accept = {"Accept": f'multipart/related; type="{_DICOM}"; transfer-syntax=*'}

        def get() -> bytes:
            with self._session.get(
                self._address + path, headers=accept, stream=True, timeout=_TIMEOUT_SECONDS
            ) as response:
                response.raise_for_status()
                return _only_part(response, max_bytes)

        return self._repeat(get)

    def _repeat(self, request: Callable[[], ResultT]) -> ResultT:
        """Send a request until it succeeds; what can pass is tried again after a pause."""
        import requests

        problem: SourceError = TransferError("")
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE_SECONDS * 2 ** (attempt - 1))
            try:
                return request()
            except requests.HTTPError as error:
                status = 0 if error.response is None else error.response.status_code
                if status in _REFUSED:
                    raise SourceError(
                        f"expected access to the archive {self.name}, received status={status}; set {USER_VARIABLE} "
                        f"and {PASSWORD_VARIABLE}, or {TOKEN_VARIABLE}"
                    ) from None
                if status in _GONE:
                    raise FileNotFoundError(f"the archive {self.name} has it no longer") from None
                if status not in _OVERLOADED:
                    raise SourceError(
                        f"expected an answer of DICOMweb from the archive {self.name}, received status={status}; "
                        "check the address"
                    ) from None
                problem = TransferError(f"the archive {self.name} answered {_ATTEMPTS} times with status={status}")
            except (requests.exceptions.ChunkedEncodingError, requests.exceptions.ContentDecodingError, EOFError):
                problem = TransferError(f"an answer of the archive {self.name} ended early {_ATTEMPTS} times")
            except requests.exceptions.JSONDecodeError:
                raise SourceError(
                    f"expected JSON of DICOMweb from the archive {self.name}, received something else; check its "
                    "address"
                ) from None
            except requests.RequestException as error:
                problem = SourceError(
                    f"expected an answer from the archive {self.name}, received {type(error).__name__}; check the "
                    "address and the network, and run the same command again"
                )
        raise problem


def read_credentials() -> Any:
    """Return what authenticates requests; without variables nothing does, not even a file in the home folder."""
    from requests.auth import HTTPBasicAuth

    token, user = os.environ.get(TOKEN_VARIABLE), os.environ.get(USER_VARIABLE)
    if token:

        def add_token(request: Any) -> Any:
            request.headers["Authorization"] = f"Bearer {token}"
            return request

        return add_token
    if user:
        return HTTPBasicAuth(user.encode(), os.environ.get(PASSWORD_VARIABLE, "").encode())
    return lambda request: request


def _only_part(response: Response, max_bytes: int) -> bytes:
    """Read a response with one DICOM file, as it should be sent or as some archives send it: without parts."""
    data = bytearray()
    for chunk in response.iter_content(_CHUNK_BYTES):
        data += chunk
        if len(data) > max_bytes:
            raise OverflowError(f"expected at most {max_bytes} bytes, received more; leave it out")
    content_type = response.headers.get("Content-Type", "")
    if content_type.lower().startswith(_DICOM):
        return bytes(data)
    boundary = re.search(r'boundary="?([^";]+)"?', content_type)
    if boundary is None:
        raise EOFError
    marker = b"--" + boundary[1].encode("ascii", "replace")
    start, end = data.find(b"\r\n\r\n", data.find(marker)), data.rfind(b"\r\n" + marker)
    if start < 0 or end < start:
        raise EOFError
    return bytes(data[start + 4 : end])
