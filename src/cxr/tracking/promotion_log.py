"""The promotion log in the tracking store: one MLflow run whose parameters are the entries.

MLflow lets a parameter of a run be written once and never again, whoever tries, in every store; that makes the
log append-only, and of two processes that write entry 7 at once exactly one succeeds.
"""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import RegistryError
from cxr.promotion.log import Entry
from cxr.tracking.connection import artifact_location, creation_lock, experiment_id

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

APPLIED = "applied"
"""Behind an entry's number: the parameter that says that the registry follows it."""
LONGEST = 6000
"""Characters that MLflow keeps of a parameter; it would cut off the rest in silence."""
PATIENCE = 15.0
"""Seconds to wait for the run of a log that another process has just begun."""
NOTE = (
    "The promotion log of the registered model: each parameter with a number is one entry, written once. "
    "`cxr history` prints it. Files of the decisions are among the artifacts. Do not delete this run."
)


class PromotionLog:
    """The log of one registered model.

    Attributes:
        run_id: MLflow's run that holds it.
    """

    def __init__(self, connected: MlflowClient, uri: str, registered_name: str) -> None:
        """Open the log, or begin it.

        Args:
            connected: client of ``uri``.
            uri: address of the store.
            registered_name: name of the registered model.

        Raises:
            RegistryError: if somebody has deleted the log.
        """
        self._client = connected
        self._uri = uri
        self.run_id = self._find(f"{registered_name}: promotions")

    def entries(self) -> list[Entry]:
        """Read the log.

        Returns:
            All entries, oldest first.
        """
        params = self._client.get_run(self.run_id).data.params
        numbers = sorted(int(key) for key in params if re.fullmatch(r"\d+", key))
        return [
            Entry.from_json(number, params[_key(number)], applied=f"{_key(number)}.{APPLIED}" in params)
            for number in numbers
        ]

    def append(self, entry: Entry) -> bool:
        """Add an entry, unless somebody was faster.

        Args:
            entry: the entry; its number is the one after the last that its writer has read.

        Returns:
            Whether it is in the log; if not, read the log again and decide anew.
        """
        from mlflow.exceptions import MlflowException

        text = entry.to_json()
        if len(text) > LONGEST:
            raise RegistryError(f"expected an entry of at most {LONGEST} characters, received length={len(text)}")
        try:
            with creation_lock(self._uri):
                self._client.log_param(self.run_id, _key(entry.number), text)
        except MlflowException:
            kept = self._client.get_run(self.run_id).data.params.get(_key(entry.number))
            if kept is None:
                raise
            return bool(kept == text)
        return True

    def mark_applied(self, number: int) -> None:
        """Note that the registry follows an entry.

        Args:
            number: its place in the log.
        """
        with creation_lock(self._uri):
            self._client.log_param(self.run_id, f"{_key(number)}.{APPLIED}", "yes")

    def keep(self, folder: Path, number: int) -> str:
        """Keep the files of a decision.

        Args:
            folder: folder whose files are copied.
            number: place of the decision's entry.

        Returns:
            Their folder among the run's artifacts.
        """
        where = f"decisions/{_key(number)}"
        self._client.log_artifacts(self.run_id, str(folder), where)
        return where

    def _find(self, name: str) -> str:
        """The log's run; of processes that begin it at once, one makes the experiment and the others wait."""
        from mlflow.entities import ViewType
        from mlflow.exceptions import MlflowException

        new = True
        try:
            with creation_lock(self._uri):
                experiment = self._client.create_experiment(name, artifact_location=artifact_location(self._uri))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            new, experiment = False, experiment_id(self._client, self._uri, name)
        deadline = time.monotonic() + PATIENCE
        while True:
            runs = self._client.search_runs([experiment], run_view_type=ViewType.ALL, order_by=["start_time ASC"])
            if runs:
                # Two runs can only come from a process that waited in vain: all take the same one.
                first = min(runs, key=lambda run: (run.info.start_time, run.info.run_id))
                if first.info.lifecycle_stage != "active":
                    raise RegistryError(
                        f"expected the promotion log, received run={first.info.run_id} (deleted); "
                        f"restore it in MLflow's page, experiment {name!r}"
                    )
                return str(first.info.run_id)
            if new or time.monotonic() > deadline:
                run = self._client.create_run(experiment, run_name="promotion log", tags={"mlflow.note.content": NOTE})
                self._client.set_terminated(run.info.run_id)
                new = False
            time.sleep(0.2)


def _key(number: int) -> str:
    return f"{number:04d}"
