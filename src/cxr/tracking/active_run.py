"""Runs of processes that are still at work: figures of each epoch and the final status, even if the store goes away."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import RegistryError
from cxr.tracking.background import PATIENCE, BackgroundCall
from cxr.tracking.finished_run import complete_run
from cxr.tracking.health import unreachable
from cxr.tracking.run_data import add_metrics, add_tags_and_params, epoch_metrics, is_known_run, logged_steps
from cxr.tracking.store import Store, experiment_name
from cxr.tracking.users import USER_TAG, current_user

if TYPE_CHECKING:
    from mlflow.entities import Metric

log = logging.getLogger(__name__)

PARENT_TAG = "mlflow.parentRunId"
ATTEMPT_TAG = "cxr.attempt"
"""Tag that a run has from its creation on, the same for all attempts at one training."""
SILENCE = "the store does not answer"
"""Reason in a warning when a call to the store has raised no error and not ended."""


class TrainingRun:
    """One MLflow run that a training process writes to; see :func:`open_run`.

    Once it is open, none of its methods fails, and none waits for a store that does not answer: what the store has
    not received is logged by the next step that reads the training's files.

    Attributes:
        run_id: MLflow's id of the run; None when nothing is logged.
    """

    def __init__(self, store: Store | None, run_id: str | None, logged: set[tuple[str, int]] | None = None) -> None:
        """Continue a run.

        Args:
            store: the tracking store; None logs nothing.
            run_id: id of a run that exists.
            logged: pairs of metric name and step that the run has already.
        """
        self.run_id = run_id
        self._store = store
        self._unsent: dict[tuple[str, int], Metric] = {}
        self._logged: set[tuple[str, int]] = set(logged or ())
        self._lock = threading.Lock()
        self._sending: BackgroundCall | None = None
        self._store_is_silent = False

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log one epoch; an epoch that an earlier, killed process has logged is not logged twice.

        A store that does not take it costs seconds and a warning, not the training: the values are sent with the
        next epoch. While one attempt to send them lasts, further epochs do not wait at all.

        Args:
            epoch: number of the epoch, used as MLflow's step.
            metrics: metric name to value, NaN where unknown; ``ended`` is the epoch's time.
        """
        if self._store is None or self.run_id is None:
            return
        new = {(metric.key, epoch): metric for metric in epoch_metrics(metrics, epoch, time.time())}
        with self._lock:
            self._unsent |= {key: metric for key, metric in new.items() if key not in self._logged}
        self._logged |= set(new)
        if self._sending is not None and not self._sending.ended():
            return
        store, run_id = self._store, self.run_id
        self._sending = BackgroundCall(lambda: self._send(store, run_id))
        if self._sending.ended(PATIENCE) and self._sending.error is None:
            self._store_is_silent = False
            return
        if not self._store_is_silent:
            reason = self._sending.problem(f"no answer within {PATIENCE:g} s")
            log.warning("epoch %d is not in MLflow yet, and the work goes on without it: %s", epoch, reason)
        self._store_is_silent = True

    def log_folder(self, folder: Path, name: str = "training") -> None:
        """Store the files of a folder with the run.

        Args:
            folder: folder whose files are copied.
            name: folder among the run's artifacts.
        """
        self._call(
            lambda store, run_id: store.client.log_artifacts(run_id, str(folder), name), f"the files of {folder}"
        )

    def log_model(self, trained: Path) -> None:
        """Log everything that a trained model's files say: figures, evidence, and the files themselves.

        Args:
            trained: the model's folder, as :func:`cxr.tracking.finished_run.complete_run` reads it.
        """
        self._call(lambda store, run_id: complete_run(store, run_id, trained), "the trained model")

    def end(self, status: str) -> None:
        """Send the remaining figures and the final status.

        Args:
            status: ``"FINISHED"``, ``"FAILED"`` or ``"KILLED"``.
        """
        timestamp = int(1000 * time.time())

        def finish(store: Store, run_id: str) -> None:
            self._send(store, run_id)
            store.client.set_terminated(run_id, status, timestamp)

        self._call(finish, "how the run ended")

    def _send(self, store: Store, run_id: str) -> None:
        """Send all unsent figures; after a failure they stay unsent."""
        with self._lock:
            batch = dict(self._unsent)
        if batch:
            add_metrics(store, run_id, batch.values())
        with self._lock:
            for key in batch:
                self._unsent.pop(key, None)

    def _call(self, work: Callable[[Store, str], object], subject: str) -> None:
        """Do work that no later epoch repeats: wait for it for as long as the store answers."""
        if self._store is None or self.run_id is None:
            return
        store, run_id = self._store, self.run_id
        if self._store_is_silent and not store.answers():
            log.warning("MLflow does not know %s yet: the store is still away", subject)
            return
        call = BackgroundCall(lambda: work(store, run_id))
        self._store_is_silent = not call.succeeded(store)
        if self._store_is_silent:
            log.warning("MLflow does not know %s yet: %s", subject, call.problem(SILENCE))


@contextmanager
def open_run(
    store: Store | None,
    experiment: str,
    name: str,
    tags: Mapping[str, object],
    params: Mapping[str, object],
    *,
    dataset_kind: str = "patients",
    run_id: str | None = None,
    parent: str | None = None,
    attempt: str | None = None,
) -> Iterator[TrainingRun]:
    """Open a run for a training process, or continue the run of a process that was killed.

    The run ends as FINISHED, as KILLED on an interrupt, as FAILED on any other error. It is an error if the store is
    away when the run is opened, but not if the store goes away later.

    Args:
        store: the tracking store; None logs nothing.
        experiment: name of the experiment; runs on phantoms go to ``"<experiment> (phantoms)"``.
        name: the run's name, e.g. the model's.
        tags: tag name to value; None is left out.
        params: parameter name to value; nested dicts become ``outer.inner``.
        dataset_kind: ``"phantom"`` or ``"patients"``, also kept as the tag ``dataset_kind``.
        run_id: run to continue; a server that does not know it gets a new run.
        parent: run under which MLflow shows this one, e.g. the search of a trial. Its work has begun already: if the
            store is away, there is a warning, and this run is not logged.
        attempt: what this run has in common with the runs of earlier attempts at the same work. Those that were killed
            and are not continued are closed as KILLED. None closes none.

    Yields:
        The run.

    Raises:
        RegistryError: if the store does not answer.
    """
    if store is None:
        yield TrainingRun(None, run_id)
        return
    all_tags = {**tags, "dataset_kind": dataset_kind, PARENT_TAG: parent, ATTEMPT_TAG: attempt}
    try:
        run = _start_run(store, experiment_name(experiment, dataset_kind), name, all_tags, params, run_id, attempt)
    except RegistryError as error:
        if parent is None:
            raise
        log.warning("%s is not logged: %s", name, error)
        run = TrainingRun(None, None)
    status = "FAILED"
    try:
        yield run
        status = "FINISHED"
    except (KeyboardInterrupt, SystemExit):
        status = "KILLED"
        raise
    finally:
        run.end(status)


def close_trial(
    store: Store | None,
    run_id: str | None,
    state: str,
    figures: Mapping[str, float],
    history: Sequence[Mapping[str, float]] = (),
) -> None:
    """Log how a trial ended; a run that has its final state already is left as it is.

    A store that is away causes a warning: the search goes on.

    Args:
        store: the tracking store; None logs nothing.
        run_id: the trial's run; None, or a run that the store does not know, logs nothing.
        state: ``"complete"``, ``"pruned"``, ``"failed"`` or ``"killed"``, kept as the tag ``state``.
        figures: name to final value; NaN is left out.
        history: rows of the trial's epochs, for those that the store has missed.
    """
    if store is None or run_id is None:
        return
    ended = time.time()

    def close() -> None:
        client = store.connect()
        if not is_known_run(store, run_id) or "state" in client.get_run(run_id).data.tags:
            return
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        logged = logged_steps(store, run_id) if history else set()
        metrics = [metric for row in history for metric in epoch_metrics(row, int(row["epoch"]), ended)]
        missing = [metric for metric in metrics if (metric.key, metric.step) not in logged]
        add_metrics(store, run_id, [*missing, *epoch_metrics(finite, 0, ended)])
        add_tags_and_params(store, run_id, tags={"state": state}, params={})
        # The same mapping as in MLflow's own storage for Optuna.
        status = {"complete": "FINISHED", "failed": "FAILED"}.get(state, "KILLED")
        client.set_terminated(run_id, status, int(1000 * ended))

    call = BackgroundCall(close)
    if not call.succeeded(store):
        log.warning("MLflow does not know the end of a trial (%s): %s", state, call.problem(SILENCE))


def _start_run(
    store: Store,
    experiment: str,
    name: str,
    tags: Mapping[str, object],
    params: Mapping[str, object],
    run_id: str | None,
    attempt: str | None,
) -> TrainingRun:
    """Find or create the run and describe it, and close the runs of killed attempts.

    A store that stops answering meanwhile is reported within seconds.
    """
    client = store.connect()
    runs: list[TrainingRun] = []

    def start() -> None:
        own_id = run_id if run_id is not None and is_known_run(store, run_id) else None
        if attempt is not None:
            _close_killed(store, experiment, attempt, continued=own_id)
        if own_id is None:
            identity = {USER_TAG: current_user(store)} | ({} if attempt is None else {ATTEMPT_TAG: attempt})
            own_id = str(client.create_run(store.experiment_id(experiment), tags=identity, run_name=name).info.run_id)
        client.update_run(own_id, status="RUNNING")
        add_tags_and_params(store, own_id, tags=tags, params=params)
        runs.append(TrainingRun(store, own_id, logged_steps(store, own_id)))

    call = BackgroundCall(start)
    if call.succeeded(store):
        return runs[0]
    if isinstance(call.error, RegistryError):
        raise call.error
    raise unreachable(store.uri, f"{call.problem('it answered first, and then no more')}; look at the server")


def _close_killed(store: Store, experiment: str, attempt: str, *, continued: str | None) -> None:
    """Close the runs of killed attempts, all but the one that is continued."""
    condition = f"tags.`{ATTEMPT_TAG}` = '{attempt}' AND attributes.status = 'RUNNING'"
    for run in store.client.search_runs([store.experiment_id(experiment)], condition):
        if run.info.run_id != continued:
            store.client.set_terminated(run.info.run_id, "KILLED")
            log.info("the run %s of a process that was killed is closed", run.info.run_id)
