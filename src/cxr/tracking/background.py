"""Calls to a store in a thread of their own, so that nobody has to wait for a store that does not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from cxr.tracking.health import first_line
from cxr.tracking.store import Store

PATIENCE = 5.0
"""Seconds that a training waits for its store at most, once each time the store stops answering."""
TIME_LIMIT = 900.0
"""Seconds that the end of a training, above all its files, may take to log while the store answers."""


class BackgroundCall:
    """A call to a store that runs in a thread of its own.

    MLflow's client retries for minutes to reach a server. In a thread that does no harm: the caller can go on, and
    the process can end. Every call may be repeated, so nothing is lost or doubled when one is abandoned.
    """

    def __init__(self, call: Callable[[], object]) -> None:
        """Start the call.

        Args:
            call: the work; it must be safe to do it twice.
        """
        self.error: Exception | None = None
        self._call = call
        self._thread = threading.Thread(target=self._run, daemon=True, name="mlflow call")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call()
        # Any store may fail in its own way (S3, SQL, HTTP), and no failure may end a training.
        except Exception as error:
            self.error = error

    def ended(self, seconds: float = 0.0) -> bool:
        """Wait for the end.

        Args:
            seconds: longest time to wait.

        Returns:
            Whether the call has ended, with or without an error.
        """
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def succeeded(self, store: Store) -> bool:
        """Wait for the end for as long as the store answers.

        Args:
            store: the store that the call speaks to.

        Returns:
            Whether the call has ended without an error.
        """
        deadline = time.monotonic() + TIME_LIMIT
        while not self.ended(PATIENCE):
            if time.monotonic() > deadline or not store.answers():
                return False
        return self.error is None

    def problem(self, silence: str) -> str:
        """Say why the call has not succeeded.

        Args:
            silence: the reason if the call has raised no error so far.

        Returns:
            First line of the error, or ``silence``.
        """
        return first_line(self.error) if self.error else silence
