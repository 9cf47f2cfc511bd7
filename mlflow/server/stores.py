"""What the tracking server needs before it starts: a database that answers, its tables, and buckets.

stores.py upgrade ADDRESS       wait for PostgreSQL, and update the tables of MLflow and of its users
stores.py tables ADDRESS        wait for PostgreSQL, and create MLflow's tables and administrator in an empty database
stores.py buckets NAME ...      wait for the S3 store, and create the buckets that do not exist

Settings are the environment variables of ../entrypoint.sh. A wait has one sentence at its start and one at its end.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeVar

Answer = TypeVar("Answer")

PAUSE = 2.0
"""Seconds between two tries."""
TRY_SECONDS = 5
"""Time limit of one try, so that a store that never answers is tried again."""
LOCK = 5000
"""PostgreSQL's advisory lock under which one server at a time creates tables. All servers must use the same number."""
TEMPORARY = ("starting up", "shutting down", "recovery", "too many", "connection slots")
"""Words of PostgreSQL's refusals that end by themselves. After any other `FATAL:` it would refuse for ever."""
MISTAKE, FAILURE = 2, 1
"""Exit status: a setting is wrong, so that another try is useless; or a store did not answer."""


class NotReadyError(Exception):
    """A store that does not answer yet, and the reason."""


def wait_for(what: str, advice: str, ask: Callable[[], Answer]) -> Answer:
    """Ask until there is an answer.

    Args:
        what: the answer, and who gives it.
        advice: what a person does if it never answers.
        ask: one try; raises :class:`NotReadyError` as long as another one makes sense.

    Returns:
        The answer.
    """
    limit, start = int(os.environ["WAIT_SECONDS"]), time.monotonic()
    waiting = False
    while True:
        try:
            answer = ask()
        except NotReadyError as reason:
            if time.monotonic() - start >= limit:
                stop(
                    FAILURE,
                    f"expected {what} within WAIT_SECONDS={limit}, received: {reason}; {advice}",
                )
            if not waiting:
                tell(f"waiting for {what}, at most {limit} seconds: {reason}")
                waiting = True
        else:
            if waiting:
                tell(f"received {what} after {time.monotonic() - start:.0f} seconds")
            return answer
        time.sleep(PAUSE)


def connect() -> Any:
    """Open a connection to the database that libpq's variables name."""
    import psycopg2

    host, port, name = (os.environ[variable] for variable in ("PGHOST", "PGPORT", "PGDATABASE"))

    def ask() -> Any:
        try:
            return psycopg2.connect("", connect_timeout=TRY_SECONDS)
        except psycopg2.OperationalError as error:
            # libpq's questions to the reader are on lines of their own.
            reason = "; ".join(line for line in str(error).splitlines() if line and not line[0].isspace())
            refused = "FATAL:" in reason and not any(words in reason for words in TEMPORARY)
            if refused or "does not support SSL" in reason:
                stop(
                    MISTAKE,
                    f"expected to log in to database {name} at {host}:{port}, received: {reason}; correct PGUSER, "
                    "PGPASSWORD, PGDATABASE or PGSSLMODE, or create the user and the database",
                )
            raise NotReadyError(reason) from error

    return wait_for(f"an answer of PostgreSQL at {host}:{port}", "start it, or correct PGHOST and PGPORT", ask)


@contextlib.contextmanager
def alone(connection: Any) -> Iterator[None]:
    """Keep other servers that start on the same database out until the block ends."""
    connection.autocommit = True
    with connection.cursor() as cursor:

        def ask() -> None:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (LOCK,))
            if not cursor.fetchone()[0]:
                raise NotReadyError("it is still at work")

        wait_for("the tables that another tracking server creates", "look at the log of that server", ask)
        # Closing the connection gives the lock back, also when this process is killed.
        yield


def create_tables(address: str) -> None:
    """Create MLflow's tables and administrator, if the database has none.

    `mlflow server` does the same, but two servers that start at once disturb each other, and one of them ends.

    Args:
        address: the database, as SQLAlchemy writes it.
    """
    with contextlib.closing(connect()) as connection, alone(connection), connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('alembic_version'), to_regclass('alembic_version_auth')")
        if None not in cursor.fetchone():
            return
        tell("creating the tables of MLflow")
        from mlflow.server.auth import bootstrap_admin_user
        from mlflow.server.handlers import initialize_backend_stores

        initialize_backend_stores(address, default_artifact_root="mlflow-artifacts:/")
        bootstrap_admin_user()


def upgrade_tables(address: str) -> None:
    """Update the tables of MLflow and of its users, as `mlflow db upgrade` and its like for users do.

    Args:
        address: the database, as SQLAlchemy writes it.
    """
    connect().close()
    # One process: to import MLflow takes longer than both updates.
    from mlflow.db import upgrade
    from mlflow.server.auth.db.cli import upgrade as upgrade_users

    upgrade.main([address], standalone_mode=False)
    upgrade_users.main(["--url", address], standalone_mode=False)


def create_buckets(names: list[str]) -> None:
    """Create the buckets that do not exist, and say for each what was done.

    Args:
        names: names of buckets.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError

    settings = Config(connect_timeout=TRY_SECONDS, read_timeout=TRY_SECONDS, retries={"total_max_attempts": 1})
    try:
        client = boto3.client("s3", config=settings)
    except (BotoCoreError, ValueError) as error:
        stop(MISTAKE, f"expected settings of an S3 store, received: {one_line(error)}; correct the AWS variables")
    address = client.meta.endpoint_url

    def create(name: str) -> str:
        try:
            try:
                client.head_bucket(Bucket=name)
                return "exists"
            except ClientError as error:
                if status(error) != 404:
                    raise
            try:
                client.create_bucket(Bucket=name)
            except client.exceptions.BucketAlreadyOwnedByYou:
                return "exists"
            return "created"
        except ClientError as error:
            if status(error) >= 500 or status(error) == 429:
                raise NotReadyError(one_line(error)) from error
            stop(
                MISTAKE,
                f"expected to create bucket {name} in the S3 store at {address}, received: {one_line(error)}; correct "
                "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or AWS_ENDPOINT_URL, or choose a name that nobody else has",
            )
        except (ConnectionError, HTTPClientError) as error:
            raise NotReadyError(one_line(error)) from error
        except BotoCoreError as error:
            stop(
                MISTAKE,
                f"expected to ask the S3 store at {address}, received: {one_line(error)}; correct the variables",
            )

    for name in names:
        done = wait_for(
            f"an answer of the S3 store at {address}",
            "start it, or correct AWS_ENDPOINT_URL",
            lambda name=name: create(name),
        )
        tell(f"bucket {name}: {done}")


def status(error: Any) -> int:
    """HTTP status of an answer of the S3 store."""
    return int(error.response["ResponseMetadata"]["HTTPStatusCode"])


def one_line(error: Exception) -> str:
    """The message of an error without line breaks."""
    return " ".join(str(error).split())


def tell(sentence: str) -> None:
    """Write a sentence for the person who reads the log."""
    sys.stderr.write(f"entrypoint.sh: {sentence}\n")


def stop(code: int, sentence: str) -> NoReturn:
    """End with a sentence."""
    tell(sentence)
    sys.exit(code)


if __name__ == "__main__":
    command, *words = sys.argv[1:]
    if command == "buckets":
        create_buckets(words)
    elif command == "tables":
        create_tables(words[0])
    elif command == "upgrade":
        upgrade_tables(words[0])
    else:
        stop(2, f"expected buckets, tables or upgrade, received command={command}")
