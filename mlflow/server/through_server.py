"""Files of an S3 store that go through the tracking server, and never by addresses that it signs.

MLflow's server offers every client signed addresses of its S3 store, and has no setting against that. A client outside
the network of the store cannot use them: it tries for a minute per file and fails. MLflow offers them only if the class
that reads the files has the base ``MultipartDownloadMixin``. This class does not have it. The entry point in
``through_server-1.dist-info`` assigns it to the scheme ``s3``.
"""

from __future__ import annotations

from typing import Any

from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.store.artifact.s3_artifact_repo import S3ArtifactRepository


class S3ThroughServer(ArtifactRepository):
    """Files of an S3 store that the server itself reads and writes."""

    def __init__(self, artifact_uri: str, *arguments: Any, **options: Any) -> None:
        super().__init__(artifact_uri, *arguments, **options)
        self._store = S3ArtifactRepository(artifact_uri, *arguments, **options)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Write a file."""
        self._store.log_artifact(local_file, artifact_path)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Write a folder."""
        self._store.log_artifacts(local_dir, artifact_path)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """List a folder."""
        return self._store.list_artifacts(path)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete a file or a folder."""
        self._store.delete_artifacts(artifact_path)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        self._store._download_file(remote_file_path, local_path)
