"""The promotion log in the tracking store: one MLflow run whose parameters are the entries.

MLflow lets a parameter of a run be written once and never again, by anybody, in every store. That makes the log
append-only: of two processes that write entry 7 at once, exactly one succeeds.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.errors import DataError, RegistryError
from cxr.files import read_json, scratch_folder
from cxr.promotion.log import PromotionEntry
from cxr.tables import read_table, write_table
from cxr.tracking.artifact_download import artifact_repository, download_files
from cxr.tracking.health import first_line
from cxr.tracking.store import Store

if TYPE_CHECKING:
    import pandas as pd

APPLIED = "applied"
"""Behind an entry's number: the parameter which says that the registry agrees with the entry."""
CUT_OFF = "cut_off"
"""Behind an entry's number: the parameter which says that a later registration missed the decision's files."""
MAX_ENTRY_LENGTH = 6000
"""Characters that MLflow keeps of a parameter; it would cut off the rest without an error."""
PREDICTIONS_FILE = "judged.parquet"
PATIENCE = 15.0
"""Seconds to wait for the run of a log that another process has just begun."""
NOTE = (
    "The promotion log of the registered model: each parameter with a number is one entry, written once. "
    "`cxr history` prints it. Files of the decisions are among the artifacts. Do not delete this run."
)


class PromotionLog:
    """The log of one registered model, with the files that decisions are based on.

    Reading a log that nobody has begun writes nothing.

    Attributes:
        experiment: name of MLflow's experiment with the log's run.
    """

    def __init__(self, store: Store, registered_name: str) -> None:
        """Open the log.

        Args:
            store: the tracking store.
            registered_name: name of the registered model.

        Raises:
            RegistryError: if somebody has deleted the log or its experiment.
        """
        self._store = store
        self.experiment = f"{registered_name}: promotions"
        self._run_id: str | None = None
        self._existing_run()

    @property
    def run_id(self) -> str:
        """MLflow's run that holds the log; the log is begun if there is none.

        Raises:
            RegistryError: if somebody has deleted the log or its experiment.
        """
        if self._run_id is None:
            self._run_id = self._existing_run() or self._begin_run()
        return self._run_id

    def entries(self) -> list[PromotionEntry]:
        """Read all entries, oldest first; none of a log that nobody has begun."""
        run_id = self._existing_run()
        if run_id is None:
            return []
        params = self._store.client.get_run(run_id).data.params
        numbers = sorted(int(key) for key in params if re.fullmatch(r"\d+", key))
        return [
            PromotionEntry.from_json(
                number,
                params[_key(number)],
                applied=f"{_key(number)}.{APPLIED}" in params,
                cut_off=f"{_key(number)}.{CUT_OFF}" in params,
            )
            for number in numbers
        ]

    def append(self, entry: PromotionEntry) -> bool:
        """Add an entry, unless another process was faster.

        Args:
            entry: the entry; its number follows the last one that its writer has read.

        Returns:
            Whether it is in the log; if not, read the log again and decide again.
        """
        from mlflow.exceptions import MlflowException

        text = entry.to_json()
        if len(text) > MAX_ENTRY_LENGTH:
            raise RegistryError(
                f"expected an entry of at most {MAX_ENTRY_LENGTH} characters, received length={len(text)}"
            )
        self._store.check_writable()
        try:
            with self._store.lock():
                self._store.client.log_param(self.run_id, _key(entry.number), text)
        except MlflowException:
            present = self._store.client.get_run(self.run_id).data.params.get(_key(entry.number))
            if present is None:
                raise
            return bool(present == text)
        return True

    def mark_applied(self, number: int) -> None:
        """Record that the registry agrees with an entry.

        Args:
            number: its position in the log.
        """
        self._mark(number, APPLIED)

    def mark_cut_off(self, number: int) -> None:
        """Record that the run of a decision ended before it had stored the decision's files.

        Args:
            number: position of the decision's entry.
        """
        self._mark(number, CUT_OFF)

    def close_run(self) -> None:
        """Close the log's run, which a process that was killed when it began the log has left open."""
        client = self._store.client
        if client.get_run(self.run_id).info.status != "FINISHED":
            client.set_terminated(self.run_id)

    def save_decision(self, folder: Path, number: int) -> str:
        """Store the files of a decision.

        Args:
            folder: folder whose files are copied.
            number: position of the decision's entry.

        Returns:
            Their MLflow address, ``runs:/...``.
        """
        self._store.client.log_artifacts(self.run_id, str(folder), _decision_folder(number))
        return self.decision_address(number)

    def decision_address(self, number: int) -> str:
        """Where the files of a decision are, or will be.

        Args:
            number: position of the decision's entry.

        Returns:
            MLflow address, ``runs:/...``.
        """
        return f"runs:/{self.run_id}/{_decision_folder(number)}"

    def read_decision_file(self, number: int, name: str) -> dict[str, Any]:
        """Read a file of a decision.

        Args:
            number: position of the decision's entry.
            name: the file, in JSON.

        Returns:
            Its content.

        Raises:
            RegistryError: if it is gone.
        """
        from mlflow.exceptions import MlflowException

        path = f"{_decision_folder(number)}/{name}"
        with scratch_folder() as scratch:
            location = self._store.client.get_run(self.run_id).info.artifact_uri
            try:
                return read_json(download_files(self._store, location, path, scratch))
            except (MlflowException, OSError) as error:
                raise RegistryError(
                    f"cannot read {path} of the promotion log: {first_line(error)}; restore the file, or run "
                    "`cxr register` again with another policy or model"
                ) from error

    def has_predictions(self, version: str) -> bool:
        """Whether the predictions of a version are stored.

        Args:
            version: number of the version.
        """
        location = self._location()
        return location is not None and self._holds_predictions(location, version)

    def _holds_predictions(self, location: str, version: str) -> bool:
        # MLflow's client would also search the models of the run.
        files = artifact_repository(self._store, location).list_artifacts(_version_folder(version))
        return any(file.path.endswith(PREDICTIONS_FILE) for file in files)

    def _location(self) -> str | None:
        """MLflow's address of the log's files; None if nobody has begun the log."""
        run_id = self._existing_run()
        return None if run_id is None else str(self._store.client.get_run(run_id).info.artifact_uri)

    def save_predictions(self, version: str, table: pd.DataFrame) -> None:
        """Store what a version predicted for the images of its split.

        Args:
            version: number of the version.
            table: columns :data:`cxr.evaluation.pairing.COLUMNS`.
        """
        with scratch_folder() as scratch:
            path = scratch / PREDICTIONS_FILE
            write_table(path, table)
            self._store.client.log_artifact(self.run_id, str(path), _version_folder(version))

    def load_predictions(self, version: str) -> pd.DataFrame | None:
        """Read what a version predicted for the images of its split.

        Args:
            version: number of the version.

        Returns:
            The table of :meth:`save_predictions`; None if none was stored, or it is damaged, as by a process that was
            killed.
        """
        location = self._location()
        if location is None or not self._holds_predictions(location, version):
            return None
        path = f"{_version_folder(version)}/{PREDICTIONS_FILE}"
        with scratch_folder() as scratch:
            copy = download_files(self._store, location, path, scratch)
            try:
                return read_table(copy)
            except DataError:
                return None

    def _mark(self, number: int, mark: str) -> None:
        self._store.check_writable()
        with self._store.lock():
            self._store.client.log_param(self.run_id, f"{_key(number)}.{mark}", "yes")

    def _existing_run(self) -> str | None:
        """MLflow's run that holds the log; None if nobody has begun the log."""
        if self._run_id is None:
            experiment = self._store.existing_experiment_id(self.experiment)
            self._run_id = None if experiment is None else self._first_run(experiment)
        return self._run_id

    def _first_run(self, experiment: str) -> str | None:
        from mlflow.entities import ViewType

        runs = self._store.client.search_runs([experiment], run_view_type=ViewType.ALL, order_by=["start_time ASC"])
        if not runs:
            return None
        # Two runs exist only if a process has waited in vain: all processes choose the same one.
        first = min(runs, key=lambda run: (run.info.start_time, run.info.run_id))
        if first.info.lifecycle_stage != "active":
            raise RegistryError(
                f"expected the promotion log, received run={first.info.run_id} (deleted); "
                f"restore it: `{self._store.mlflow_command(f'runs restore --run-id {first.info.run_id}')}`"
            )
        return str(first.info.run_id)

    def _begin_run(self) -> str:
        """Begin the log. If several processes do so at once, one makes the experiment and the others wait."""
        from mlflow.exceptions import MlflowException

        client, store = self._store.client, self._store
        created = True
        try:
            with store.lock():
                experiment = client.create_experiment(self.experiment, artifact_location=store.artifact_location)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            created, experiment = False, store.experiment_id(self.experiment)
        deadline = time.monotonic() + PATIENCE
        while (first := self._first_run(experiment)) is None:
            if created or time.monotonic() > deadline:
                run = client.create_run(experiment, run_name="promotion log", tags={"mlflow.note.content": NOTE})
                client.set_terminated(run.info.run_id)
                created = False
            time.sleep(0.2)
        return first


def _key(number: int) -> str:
    return f"{number:04d}"


def _decision_folder(number: int) -> str:
    return f"decisions/{_key(number)}"


def _version_folder(version: str) -> str:
    return f"versions/{version}"
