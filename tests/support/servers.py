"""Real servers on loopback: PostgreSQL, an S3 store, and MLflow as a team runs it. Fixtures are in server_fixtures."""

from __future__ import annotations

import contextlib
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support.loopback import free_port

ROOT = Path(__file__).parents[2]
ENTRYPOINT = ROOT / "mlflow" / "entrypoint.sh"
PATIENCE = 180.0
"""Seconds that a server may take to answer; a slow machine needs 40 for the first start of MLflow."""
USER = "radiologist"


@dataclass(frozen=True)
class Database:
    """A PostgreSQL server with an empty database, as the variables that its clients read."""

    environment: Mapping[str, str]


@dataclass(frozen=True)
class ObjectStore:
    """A server that speaks S3 and keeps each object as a file in ``folder / bucket``."""

    url: str
    folder: Path
    environment: Mapping[str, str]

    def client(self) -> Any:
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self.environment["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.environment["AWS_SECRET_ACCESS_KEY"],
        )


@dataclass(frozen=True)
class TrackingServer:
    """MLflow behind its login."""

    uri: str
    bucket: str
    environment: Mapping[str, str]
    admin: tuple[str, str]
    user: tuple[str, str] = field(default_factory=lambda: (USER, secrets.token_urlsafe(16)))

    def status(self, path: str, login: tuple[str, str] | None = None, **headers: str) -> int:
        """HTTP status of a GET request."""
        if login is not None:
            headers["Authorization"] = "Basic " + b64encode(":".join(login).encode()).decode()
        try:
            with urllib.request.urlopen(
                urllib.request.Request(self.uri + path, headers=headers), timeout=60
            ) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code


@contextlib.contextmanager
def database(port: int | None = None, password: str | None = None) -> Iterator[Database]:
    """Start PostgreSQL; as root it is run by another user, because it refuses root."""
    programs = _postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    account = _unprivileged() if os.geteuid() == 0 else {}
    # Not below pytest's folder, which other users may not enter.
    root = Path(tempfile.mkdtemp(prefix="cxr-postgres-"))
    password, port = password or secrets.token_urlsafe(16), port or free_port()
    try:
        (root / "password").write_text(password)
        if account:
            for path in (root, root / "password"):
                os.chown(path, account["user"], account["group"])
        result = subprocess.run(
            [
                *(programs / "initdb", f"--pgdata={root / 'data'}", "--no-sync", "--encoding=UTF8", "--locale=C"),
                *("--username=mlflow", f"--pwfile={root / 'password'}", "--auth=scram-sha-256"),
            ],
            cwd=root,
            capture_output=True,
            text=True,
            **account,
        )
        assert result.returncode == 0, result.stderr
        options = [f"port={port}", "listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off"]
        command = [str(programs / "postgres"), "-D", str(root / "data")]
        command += [argument for option in options for argument in ("-c", option)]
        environment = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(port),
            "PGUSER": "mlflow",
            "PGPASSWORD": password,
            "PGDATABASE": "mlflow",
        }
        with _running(command, root / "log", lambda: _make_database(environment), cwd=root, **account):
            yield Database(environment)
    finally:
        shutil.rmtree(root)


@contextlib.contextmanager
def object_store_in(folder: Path) -> Iterator[ObjectStore]:
    """Start rclone's S3 server, which checks signatures, on files below ``folder``."""
    program = shutil.which("rclone", path=_path())
    if program is None:
        pytest.skip("rclone is not installed: make .venv/dev.stamp")
    files, settings = folder / "objects", folder / "aws.ini"
    files.mkdir()
    settings.touch()
    access, secret, port = "test-key", secrets.token_urlsafe(24), free_port()
    url = f"http://127.0.0.1:{port}"
    store = ObjectStore(
        url,
        files,
        {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": access,
            "AWS_SECRET_ACCESS_KEY": secret,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
            "AWS_CONFIG_FILE": str(settings),
            "AWS_SHARED_CREDENTIALS_FILE": str(settings),
        },
    )
    command = [program, "serve", "s3", "--addr", f"127.0.0.1:{port}", "--config", os.devnull, str(files)]
    keys = {"RCLONE_AUTH_KEY": f'"{access},{secret}"', "PATH": _path(), "HOME": str(folder)}
    with _running(command, folder / "rclone.log", lambda: _connects(port), env=keys):
        yield store


def server_settings(folder: Path, port: int, bucket: str, password: str) -> dict[str, str]:
    """Variables of ``mlflow/entrypoint.sh`` beside those of its stores, with an administrator's password."""
    return {
        "PATH": _path(),
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{bucket}/team",
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"127.0.0.1:{port},tracking.example.org",
        "MLFLOW_PORT": str(port),
        "MLFLOW_WORKERS": "2",
        "MLFLOW_AUTH_ADMIN_PASSWORD": password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_urlsafe(24),
        "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }


@contextlib.contextmanager
def tracking_server(folder: Path, database: Database, store: ObjectStore) -> Iterator[TrackingServer]:
    """Start ``mlflow/entrypoint.sh`` on both, with a bucket of its own and one ordinary user."""
    port, bucket = free_port(), "mlflow-files"
    admin = ("admin", secrets.token_urlsafe(16))
    environment = server_settings(folder, port, bucket, admin[1]) | database.environment | store.environment
    subprocess.run([ENTRYPOINT, "buckets", bucket], env=environment, cwd=folder, check=True)
    server = TrackingServer(f"http://127.0.0.1:{port}", bucket, environment, admin)
    with _running([str(ENTRYPOINT)], folder / "mlflow.log", lambda: healthy(server), env=environment, cwd=folder):
        add_user(server, *server.user)
        yield server


def add_user(server: TrackingServer, name: str, password: str) -> None:
    """Add an ordinary user."""
    ask_as_admin(server, "/api/2.0/mlflow/users/create", username=name, password=password)


def ask_as_admin(server: TrackingServer, path: str, **values: str) -> None:
    """Send the request that ``mlflow/README.md`` sends with curl."""
    import requests

    response = requests.post(server.uri + path, json=values, auth=server.admin, timeout=60)
    assert response.status_code == 200, response.text


@contextlib.contextmanager
def _running(command: list[str], log: Path, ready: Callable[[], bool], **options: Any) -> Iterator[None]:
    """Run a server until the block ends; its own process is asked to stop, and killed only if it does not."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **options)
    try:
        deadline = time.monotonic() + PATIENCE
        while not ready():
            output = log.read_text(errors="replace")[-4000:]
            assert process.poll() is None, f"{command[0]} ended with status {process.returncode}:\n{output}"
            assert time.monotonic() < deadline, f"{command[0]} does not answer:\n{output}"
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _make_database(environment: Mapping[str, str]) -> bool:
    import psycopg2
    from psycopg2.errors import DuplicateDatabase

    try:
        connection = psycopg2.connect(
            host=environment["PGHOST"],
            port=environment["PGPORT"],
            user=environment["PGUSER"],
            password=environment["PGPASSWORD"],
            dbname="postgres",
        )
    except psycopg2.OperationalError:
        return False
    connection.autocommit = True
    with contextlib.closing(connection), connection.cursor() as cursor, contextlib.suppress(DuplicateDatabase):
        cursor.execute(f"CREATE DATABASE {environment['PGDATABASE']}")
    return True


def healthy(server: TrackingServer) -> bool:
    """Whether it answers."""
    try:
        return server.status("/health") == 200
    except OSError:
        return False


def _connects(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _path() -> str:
    """Programs of this Python's environment first."""
    return f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def _postgres_programs() -> Path | None:
    """Folder of initdb and postgres, which Debian keeps off the path."""
    newest_first = sorted(
        Path("/usr/lib/postgresql").glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True
    )
    initdb = shutil.which("initdb")
    for folder in [*([Path(initdb).resolve().parent] if initdb else []), *newest_first]:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


def _unprivileged() -> dict[str, Any]:
    """Account that may run PostgreSQL when the tests are run by root."""
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    pytest.skip("PostgreSQL refuses root, and there is no user postgres or nobody")
