"""Fixtures that start the servers of a team once per test session, for any test that asks for them.

A test that wants the tracking server takes ``server_uri``: an address, with the credentials of an ordinary user in the
environment. ``mlflow_server`` is the same server with its administrator; ``bucket`` is an empty bucket of its S3 store.
``s3_store`` is another S3 server, whose responses a test can disturb, with an empty bucket; ``s3_store_of_file`` is the
same for all tests of a file together.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from support.s3_server import S3Server
    from support.servers import ObjectStore, TrackingServer


@pytest.fixture(scope="session")
def object_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    from support.servers import object_store_in

    with object_store_in(tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory, object_store: ObjectStore) -> Iterator[TrackingServer]:
    from support.servers import database, tracking_server

    with database() as postgres, tracking_server(tmp_path_factory.mktemp("mlflow"), postgres, object_store) as server:
        yield server


@pytest.fixture
def server_uri(mlflow_server: TrackingServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of the server, with an ordinary user logged in."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", mlflow_server.user[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", mlflow_server.user[1])
    return mlflow_server.uri


@pytest.fixture
def bucket(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of an empty bucket, with address and keys of its store in the environment."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    name = f"bucket-{secrets.token_hex(6)}"
    object_store.client().create_bucket(Bucket=name)
    return name


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A server whose responses can be disturbed."""
    from support.s3_server import S3Server

    server = S3Server()
    yield server
    server.close()


@pytest.fixture
def s3_store(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[S3Server]:
    """The same server with nothing disturbed and an empty bucket; its keys are in the environment, its address not."""
    from support.s3_server import set_keys

    set_keys(monkeypatch, tmp_path)
    s3_server.reset()
    yield s3_server
    s3_server.release()


@pytest.fixture(scope="module")
def s3_store_of_file(s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """The same for all tests of a file, with its address in the environment; with it, none of them takes another."""
    from support.s3_server import set_keys

    s3_server.reset()
    with pytest.MonkeyPatch.context() as patch:
        set_keys(patch, tmp_path_factory.mktemp("keys"))
        patch.setenv("AWS_ENDPOINT_URL", s3_server.url)
        yield s3_server
