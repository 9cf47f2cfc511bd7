"""The MLflow tracking store: a local SQLite file or a server, and the one client that this process uses for it."""

from __future__ import annotations

import logging
import os
import shlex
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import MissingInputError, RegistryError
from cxr.fast_import import import_without_garbage_collection
from cxr.tracking import database, health
from cxr.tracking.relocation import ARTIFACTS_FOLDER, StorePlace, correct_addresses

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from cxr.tracking.signatures import SigningKey, TrustedKeys

SQLITE = "sqlite:///"
DAMAGED_FILE = "if the file is damaged, restore it from a backup or name another store"
REPEAT = "run the step again: what is there already is not logged twice"


class Store:
    """One MLflow tracking store, used for runs and for the model registry.

    Making the object costs nothing: MLflow is imported and the store is contacted on first use.

    Attributes:
        uri: address as in ``params.yaml``: ``sqlite:///mlflow.db`` (relative to the working folder) or the
            ``http(s)://`` address of a server.
        is_server: whether it is a server.
        file: absolute path of a local store's file; None for a server.
        artifact_location: folder for the artifacts of a local store's experiments; None for a server, which decides
            itself.
        signing_key: key that signs new versions; None signs none.
        trusted_keys: keys that a version must be signed by before it is loaded; None asks for no signature.
    """

    def __init__(
        self, uri: str, *, signing_key: SigningKey | None = None, trusted_keys: TrustedKeys | None = None
    ) -> None:
        """Take the address.

        Args:
            uri: address of the store.
            signing_key: key that signs new versions; None signs none.
            trusted_keys: keys that a version must be signed by before it is loaded; None asks for no signature.
        """
        self.uri = uri
        self.signing_key, self.trusted_keys = signing_key, trusted_keys
        self.is_server = uri.startswith(("http://", "https://"))
        self.file = Path(uri.removeprefix(SQLITE)).absolute() if uri.startswith(SQLITE) else None
        # MLflow's own default would be in the working folder of whichever process asks.
        self.artifact_location = None if self.file is None else StorePlace(self.file).address
        self._client: MlflowClient | None = None

    @property
    def address(self) -> str:
        """The address for MLflow: it does not depend on the working folder, and may hold any file name."""
        if self.file is None:
            return self.uri
        from sqlalchemy.engine import URL, make_url

        plain = f"{SQLITE}{self.file}"
        if make_url(plain).database == str(self.file):
            return plain
        # With the driver's name, because MLflow creates the encoded folder of an address that begins as the plain one.
        return URL.create("sqlite+pysqlite", database=str(self.file)).render_as_string()

    @property
    def client(self) -> MlflowClient:
        """The client of the last :meth:`connect`; connects if that has not happened yet."""
        return self._client or self.connect()

    def connect(self) -> MlflowClient:
        """Check that the store answers and can be written, and create a local store if it is missing.

        Several processes may do this at once: a local store is created under a lock. A local store that was moved or
        copied is told where its files are now. A server that does not answer is reported within seconds.

        Returns:
            A client for runs and registry.

        Raises:
            MissingInputError: if a local store was moved or copied without its files, or has lost its content.
            RegistryError: if the store does not answer, or cannot be written.
        """
        self.check_writable()
        return self._open(create=True)

    def connect_existing(self) -> MlflowClient:
        """Connect as :meth:`connect` does, but create no store and write nothing: for callers that only read.

        A local store that cannot be written is read as it is, without a lock. One that can is upgraded and told where
        its files are, as by :meth:`connect`.

        Returns:
            A client for runs and registry.

        Raises:
            MissingInputError: if there is no such local store, or it has lost its content.
            RegistryError: if the store does not answer.
        """
        if not self.uri:
            raise MissingInputError(
                "expected an MLflow store, received tracking_uri=''; run `cxr register`, or name another store"
            )
        if self.file is not None:  # asked once more under the lock, because the file may be moved meanwhile
            database.refuse_absence(self.file)
        return self._open(create=False)

    def _open(self, *, create: bool) -> MlflowClient:
        load_mlflow()
        from mlflow import MlflowClient
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        self.check_answer()
        with self.lock() if self.is_writable else nullcontext():
            try:
                if self.file is not None:
                    database.prepare_database(self.file, writable=self.is_writable, create=create)
                client = MlflowClient(tracking_uri=self.address, registry_uri=self.address)
                if not self.is_server:
                    client.search_experiments(max_results=1)
                if self.file is not None:
                    correct_addresses(self.file)
                    _forget_addresses()
            except (MlflowException, SQLAlchemyError, sqlite3.Error, OSError) as error:
                otherwise = DAMAGED_FILE if self.file else "start the server, or use sqlite:///mlflow.db"
                remedy = health.file_remedy(error) or otherwise
                raise health.unreachable(self.uri, f"{health.first_line(error)}; {remedy}") from error
        self._client = client
        return client

    @property
    def is_writable(self) -> bool:
        """Whether this user may write a local store's file and folder; always True for a server."""
        return self._write_protected_path() is None

    def check_writable(self) -> None:
        """Refuse a local store that cannot be written, before any work.

        Raises:
            RegistryError: if its file or its folder cannot be written.
        """
        protected = self._write_protected_path()
        if protected is not None:
            raise RegistryError(
                f"expected an MLflow store that can be written, received tracking uri={self.uri!r}: this user may not "
                f"write {protected}; {health.MAKE_WRITABLE}"
            )

    def _write_protected_path(self) -> Path | None:
        if self.file is None:
            return None
        # SQLite makes a file beside the store's file before it writes.
        paths = (self.file.parent, self.file, self.file.with_name(f"{self.file.name}.lock"))
        return next((path for path in paths if path.exists() and not os.access(path, os.W_OK)), None)

    def check_answer(self) -> None:
        """Ask a server for an answer; a local store needs none.

        Raises:
            RegistryError: if the server cannot be used, with the reason.
        """
        if self.is_server:
            health.check_server(self.uri)

    def answers(self) -> bool:
        """Whether the store answers now; always True for a local one."""
        try:
            self.check_answer()
        except RegistryError:
            return False
        return True

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Let one thread of one process at a time create things in a local store; a server needs no lock.

        A thread that holds the lock may take it again. The lock of a killed process is free at once.

        Raises:
            RegistryError: if the lock cannot be taken, because the folder of the store cannot be written.
        """
        if self.file is None:
            yield
            return
        from filelock import FileLock

        # One object per file in the process: only then may a thread take the lock again through another Store.
        lock = FileLock(f"{self.file}.lock", is_singleton=True)
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        except OSError as error:
            reason = (
                f"{error}; make its folder writable, copy {self.file.name} and {ARTIFACTS_FOLDER} to a folder that is, "
                "or use a server"
            )
            raise health.unreachable(self.uri, reason) from error
        try:
            yield
        finally:
            lock.release()

    @contextmanager
    def clear_errors(self, action: str) -> Iterator[None]:
        """Turn a failure of the store in the middle of work into an error of this project.

        Args:
            action: what the store was asked to do, e.g. ``"take the evaluation of three_block"``.

        Raises:
            RegistryError: in place of errors of MLflow, of its storage and of the connection.
        """
        try:
            yield
        except Exception as error:
            if not health.is_store_error(error):
                raise
            raise RegistryError(
                f"expected the MLflow store to {action}, received tracking uri={health.hide_passwords(self.uri)!r}: "
                f"{health.first_line(error)}; {health.file_remedy(error) or REPEAT}"
            ) from error

    def mlflow_command(self, arguments: str) -> str:
        """A command of MLflow about this store, for what its page cannot do.

        Args:
            arguments: what follows ``mlflow``.

        Returns:
            A line for a shell, without passwords.
        """
        return f"MLFLOW_TRACKING_URI={shlex.quote(health.hide_passwords(self.address))} mlflow {arguments}"

    def experiment_id(self, name: str) -> str:
        """Find or create an experiment.

        Args:
            name: full name of the experiment.

        Returns:
            MLflow's id of the experiment.

        Raises:
            RegistryError: if it cannot be created, or was deleted; MLflow keeps its name until `mlflow gc` removes it.
        """
        from mlflow.exceptions import MlflowException

        experiment_id = self.existing_experiment_id(name)
        if experiment_id is not None:
            return experiment_id
        with self.lock():
            try:
                return str(self.client.create_experiment(name, artifact_location=self.artifact_location))
            except MlflowException as error:
                experiment_id = self.existing_experiment_id(name)  # another process may have been faster
                if experiment_id is None:
                    raise RegistryError(f"cannot create the experiment {name!r}: {health.explain(error)}") from error
                return experiment_id

    def existing_experiment_id(self, name: str) -> str | None:
        """Find an experiment.

        Args:
            name: full name of the experiment.

        Returns:
            MLflow's id of the experiment; None if there is none.

        Raises:
            RegistryError: if it was deleted; MLflow keeps its name until `mlflow gc` removes it.
        """
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            return None
        if experiment.lifecycle_stage != "active":
            raise RegistryError(
                f"expected an active experiment, received experiment={name!r} (deleted); restore it and its runs: "
                f"`{self.mlflow_command(f'experiments restore -x {experiment.experiment_id}')}`"
            )
        return str(experiment.experiment_id)


def experiment_name(base: str, dataset_kind: str) -> str:
    """Name the experiment so that runs on phantoms stay apart from runs on radiographs of people.

    Args:
        base: the experiment's name in ``params.yaml``, e.g. ``"pneumonia"``.
        dataset_kind: ``"phantom"`` or ``"patients"``.

    Returns:
        ``base``, followed by ``" (phantoms)"`` for phantoms.
    """
    return f"{base} (phantoms)" if dataset_kind == "phantom" else base


def _forget_addresses() -> None:
    """Let MLflow read addresses anew: it keeps one per id of a run, which is the same in a store and in its copy."""
    from mlflow.tracking._tracking_service import utils

    utils._artifact_repos_cache.clear()


def load_mlflow() -> None:
    """Import MLflow, without its usage statistics, progress bars and chatty loggers."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    import_without_garbage_collection("mlflow")  # sets the level of its own logger when it is imported
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # It logs an error of SQLite with its traceback, and raises it, too.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    # It logs each retry; the final outcome is reported as an error of ours.
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)
    # It warns that uv environments lack pip; versions name their packages themselves.
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
