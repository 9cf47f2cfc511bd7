"""Runs while they go on: figures of each epoch, and an end, however the store behaves meanwhile."""

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
from cxr.tracking.connection import client, experiment_id, experiment_name
from cxr.tracking.delivery import PATIENCE, Delivery
from cxr.tracking.health import answers, first_line, unreachable
from cxr.tracking.run_data import add, add_metrics, epoch_metrics, known, logged
from cxr.tracking.runs import complete

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

log = logging.getLogger(__name__)

PARENT_TAG = "mlflow.parentRunId"


class TrainingRun:
    """One MLflow run that a training process writes to; see :func:`open_run`.

    Once it is open, no call of it fails, and none waits for a store that doesn't answer: what is not taken is left
    to the next step that logs the training's files.

    Attributes:
        run_id: MLflow's id of the run, or None when nothing is logged.
    """

    def __init__(
        self,
        connected: MlflowClient | None,
        run_id: str | None,
        *,
        uri: str = "",
        present: set[tuple[str, int]] | None = None,
    ) -> None:
        """Continue a run.

        Args:
            connected: client of the store, or None to log nothing.
            run_id: id of a run that exists.
            uri: address of the store.
            present: figures that the run has, with their steps.
        """
        self.run_id = run_id
        self._client = connected
        self._uri = uri
        self._waiting: dict[tuple[str, int], Metric] = {}
        self._seen: set[tuple[str, int]] = set(present or ())
        self._lock = threading.Lock()
        self._sending: Delivery | None = None
        self._silent = False

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Log one epoch; an epoch that an earlier, killed process has logged is not logged twice.

        A store that doesn't take it costs seconds and a warning, not the training: the values wait for the next
        epoch. While one attempt to send them lasts, further epochs don't wait at all.

        Args:
            epoch: number of the epoch, used as MLflow's step.
            metrics: metric name to value, NaN where unknown; ``ended`` is the epoch's time.
        """
        if self._client is None or self.run_id is None:
            return
        new = {(one.key, epoch): one for one in epoch_metrics(metrics, epoch, time.time())}
        with self._lock:
            self._waiting |= {which: one for which, one in new.items() if which not in self._seen}
        self._seen |= set(new)
        if self._sending is not None and not self._sending.ended():
            return
        self._sending = Delivery(self._send)
        if self._sending.ended(PATIENCE) and self._sending.error is None:
            self._silent = False
            return
        if not self._silent:
            why = first_line(self._sending.error) if self._sending.error else f"no answer within {PATIENCE:g} s"
            log.warning("epoch %d is not in MLflow yet, and the work goes on without it: %s", epoch, why)
        self._silent = True

    def log_folder(self, folder: Path, name: str = "training") -> None:
        """Store the files of a folder with the run.

        Args:
            folder: folder whose files are copied.
            name: folder among the run's artifacts.
        """
        if self._client is not None and self.run_id is not None:
            connected, run_id = self._client, self.run_id
            self._insist(lambda: connected.log_artifacts(run_id, str(folder), name), f"the files of {folder}")

    def log_model(self, trained: Path) -> None:
        """Make the run tell all that a trained model's files tell: figures, evidence, the files themselves.

        Args:
            trained: the model's folder, as :func:`cxr.tracking.runs.complete` reads it.
        """
        if self._client is not None and self.run_id is not None:
            connected, run_id = self._client, self.run_id
            self._insist(lambda: complete(connected, run_id, trained), "the trained model")

    def end(self, status: str) -> None:
        """Send what waits, and say how the run ended.

        Args:
            status: ``"FINISHED"``, ``"FAILED"`` or ``"KILLED"``.
        """
        if self._client is None or self.run_id is None:
            return
        connected, run_id, moment = self._client, self.run_id, int(1000 * time.time())

        def say() -> None:
            self._send()
            connected.set_terminated(run_id, status, moment)

        self._insist(say, "how the run ended")

    def _send(self) -> None:
        """Send what waits; what was sent in vain goes on waiting."""
        with self._lock:
            batch = dict(self._waiting)
        if self._client is not None and self.run_id is not None and batch:
            add_metrics(self._client, self.run_id, batch.values())
        with self._lock:
            for which in batch:
                self._waiting.pop(which, None)

    def _insist(self, work: Callable[[], object], what: str) -> None:
        """Do what no later epoch does again, for as long as the store answers."""
        if self._silent and not answers(self._uri):
            log.warning("MLflow does not know %s yet: the store is still away", what)
            return
        delivery = Delivery(work)
        self._silent = not delivery.settled(self._uri)
        if self._silent:
            why = first_line(delivery.error) if delivery.error else "the store does not answer"
            log.warning("MLflow does not know %s yet: %s", what, why)


@contextmanager
def open_run(
    uri: str,
    experiment: str,
    name: str,
    tags: Mapping[str, object],
    params: Mapping[str, object],
    *,
    dataset_kind: str = "patients",
    run_id: str | None = None,
    parent: str | None = None,
) -> Iterator[TrainingRun]:
    """Open a run for a training process, or go on with the one of a process that was killed.

    The run ends as FINISHED, as KILLED on an interrupt, as FAILED on any other error. A store that is away when the
    run is opened is an error; one that goes away later is not.

    Args:
        uri: address of the store; an empty text logs nothing.
        experiment: name of the experiment; runs on phantoms go to ``"<experiment> (phantoms)"``.
        name: the run's name, e.g. the model's.
        tags: tag name to value; None is left out.
        params: parameter name to value; nested dicts become ``outer.inner``.
        dataset_kind: ``"phantom"`` or ``"patients"``, also kept as the tag ``dataset_kind``.
        run_id: run to go on with; a server that doesn't know it gets a new run.
        parent: run that this one is shown under, e.g. the search of a trial. Its work is going on already: a store
            that is away now is a warning, and this run is not logged.

    Yields:
        The run.

    Raises:
        RegistryError: if the store doesn't answer.
    """
    if not uri:
        yield TrainingRun(None, run_id)
        return
    labels = {**tags, "dataset_kind": dataset_kind, PARENT_TAG: parent}
    try:
        run = _opened(uri, experiment_name(experiment, dataset_kind), name, labels, params, run_id)
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
    uri: str,
    run_id: str | None,
    state: str,
    figures: Mapping[str, float],
    history: Sequence[Mapping[str, float]] = (),
) -> None:
    """Say in a trial's run how it ended; a run that says so already is left as it is.

    A store that is away is a warning: the search goes on.

    Args:
        uri: address of the store; an empty text logs nothing.
        run_id: the trial's run; None, or one that the store doesn't know, logs nothing.
        state: ``"complete"``, ``"pruned"``, ``"failed"`` or ``"killed"``, kept as the tag ``state``.
        figures: name to final value; NaN is left out.
        history: rows of the trial's epochs, for those that the store has missed.
    """
    if not uri or run_id is None:
        return
    moment = time.time()

    def close() -> None:
        connected = client(uri)
        if not known(connected, run_id) or "state" in connected.get_run(run_id).data.tags:
            return
        finite = {name: value for name, value in figures.items() if math.isfinite(value)}
        present = logged(connected, run_id) if history else set()
        epochs = [one for row in history for one in epoch_metrics(row, int(row["epoch"]), moment)]
        missing = [one for one in epochs if (one.key, one.step) not in present]
        add_metrics(connected, run_id, [*missing, *epoch_metrics(finite, 0, moment)])
        add(connected, run_id, tags={"state": state}, params={})
        # As MLflow's own storage for Optuna has it.
        ending = {"complete": "FINISHED", "failed": "FAILED"}.get(state, "KILLED")
        connected.set_terminated(run_id, ending, int(1000 * moment))

    delivery = Delivery(close)
    if not delivery.settled(uri):
        why = first_line(delivery.error) if delivery.error else "the store does not answer"
        log.warning("MLflow does not know the end of a trial (%s): %s", state, why)


def _opened(
    uri: str,
    experiment: str,
    name: str,
    tags: Mapping[str, object],
    params: Mapping[str, object],
    run_id: str | None,
) -> TrainingRun:
    """Find or make the run and describe it; a store that falls silent meanwhile is told within seconds too."""
    connected = client(uri)
    found: list[TrainingRun] = []

    def begin() -> None:
        own = run_id
        if own is None or not known(connected, own):
            own = str(connected.create_run(experiment_id(connected, uri, experiment), run_name=name).info.run_id)
        connected.update_run(own, status="RUNNING")
        add(connected, own, tags=tags, params=params)
        found.append(TrainingRun(connected, own, uri=uri, present=logged(connected, own)))

    opening = Delivery(begin)
    if opening.settled(uri):
        return found[0]
    if isinstance(opening.error, RegistryError):
        raise opening.error
    why = first_line(opening.error) if opening.error else "it answered first, and then no more"
    raise unreachable(uri, f"{why}; look at the server")
