"""The Kubernetes API as a pod reaches it, with the rights of its service account."""

from __future__ import annotations

import http.client
import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cxr.errors import ClusterError, ParameterError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Folder in which Kubernetes puts token, namespace and authority of a pod's service account."""
TIMEOUT_SECONDS = 30
TEMPORARY_STATUSES = frozenset({408, 429, 500, 502, 503, 504})
REMEDIES = {
    401: "the token of the service account is not valid",
    403: "give the service account this right (infra/kubernetes/pipeline/account.yaml)",
    404: "install the Kubeflow Trainer 2.2 or newer in the cluster",
}
"""Status of a refused request to what is wrong, or what to do."""


class ServerOutageError(ClusterError):
    """The API server cannot be reached or is overloaded; the same request can succeed later."""


@dataclass(frozen=True)
class ApiServer:
    """Sends requests to the API server of the cluster.

    Attributes:
        address: its address, ``https://HOST:PORT``.
        namespace: the pod's namespace.
        account: folder with the files of the service account.
    """

    address: str
    namespace: str
    account: Path

    @classmethod
    def of_pod(cls, environment: Mapping[str, str], account: Path = SERVICE_ACCOUNT) -> Self:
        """Find the server of the pod in which this process runs.

        Args:
            environment: environment variables, of which Kubernetes sets ``KUBERNETES_SERVICE_HOST`` and ``_PORT``.
            account: folder with the files ``token``, ``namespace`` and ``ca.crt``.

        Returns:
            The server.

        Raises:
            ParameterError: if this is no pod, or one without a service account.
        """
        host = environment.get("KUBERNETES_SERVICE_HOST", "")
        missing = [name for name in ("token", "namespace", "ca.crt") if not (account / name).is_file()]
        problems = [] if host else ["the environment variable KUBERNETES_SERVICE_HOST, received none"]
        problems += [f"the file {account / name} of a service account, received none" for name in missing]
        if problems:
            advice = "run this in a pod, as a task of the pipeline, or train on one node with `cxr train`"
            raise ParameterError([f"expected {problem}; {advice}" for problem in problems])
        name = f"[{host}]" if ":" in host else host
        port = environment.get("KUBERNETES_SERVICE_PORT", "443")
        return cls(f"https://{name}:{port}", (account / "namespace").read_text().strip(), account)

    def find(self, path: str) -> dict[str, Any] | None:
        """Read an object or a list.

        Args:
            path: path behind the server's address.

        Returns:
            The object; None if there is none.

        Raises:
            ServerOutageError: if the server does not answer.
            ClusterError: if it refuses.
        """
        content = self._send("GET", path, missing_ok=True)
        return None if content is None else _parse(content)

    def create(self, path: str, content: Mapping[str, Any]) -> None:
        """Create an object.

        Args:
            path: path of the list that it joins.
            content: the object.

        Raises:
            ServerOutageError: if the server does not answer.
            ClusterError: if it refuses.
        """
        self._send("POST", path, content)

    def delete(self, path: str) -> None:
        """Delete an object and what belongs to it; it may be gone already.

        Args:
            path: path of the object.

        Raises:
            ServerOutageError: if the server does not answer.
            ClusterError: if it refuses.
        """
        self._send("DELETE", path, {"propagationPolicy": "Foreground"}, missing_ok=True)

    def read_log(self, pod: str, container: str) -> list[str]:
        """Read the log of a container.

        Args:
            pod: name of the pod.
            container: name of the container.

        Returns:
            Its lines; none if it has not started, or the server does not give it.
        """
        try:
            path = f"/api/v1/namespaces/{self.namespace}/pods/{pod}/log?container={container}"
            content = self._send("GET", path, missing_ok=True) or b""
        except ClusterError:  # the log is no part of the result
            return []
        return content.decode(errors="replace").splitlines()

    def _send(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, missing_ok: bool = False
    ) -> bytes | None:
        """Send a request; None if the object does not exist and may be missing."""
        request = urllib.request.Request(f"{self.address}{path}", method=method)
        # Kubernetes replaces the token every hour.
        request.add_header("Authorization", f"Bearer {(self.account / 'token').read_text().strip()}")
        if body is not None:
            request.data = json.dumps(body).encode()
            request.add_header("Content-Type", "application/json")
        tls = ssl.create_default_context(cafile=str(self.account / "ca.crt"))
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=tls))
        try:
            with opener.open(request, timeout=TIMEOUT_SECONDS) as response:
                content: bytes = response.read()
                return content
        except urllib.error.HTTPError as error:
            if error.code == 404 and missing_ok:
                return None
            message = _message(error.read())
            received = f"{method} {path.partition('?')[0]}: status {error.code} ({message})"
            if error.code in TEMPORARY_STATUSES:
                raise ServerOutageError(f"expected an answer of the API server, received {received}") from error
            remedy = REMEDIES.get(error.code, "correct what it names")
            raise ClusterError(f"the API server refused {received}; {remedy}") from error
        except (OSError, http.client.HTTPException) as error:
            raise ServerOutageError(f"expected the API server at {self.address} to answer, received {error}") from error


def _parse(content: bytes) -> dict[str, Any]:
    try:
        values = json.loads(content)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ServerOutageError(f"expected a JSON object of the API server, received {content[:100]!r}")
    return values


def _message(content: bytes) -> str:
    """The sentence in the server's answer to a refused request."""
    try:
        return str(json.loads(content)["message"])
    except (ValueError, KeyError, TypeError):
        return content[:200].decode(errors="replace")
