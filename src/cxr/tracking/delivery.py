"""Talking to a store without waiting for it: work in a thread that its owner may leave behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from cxr.tracking.health import answers

PATIENCE = 5.0
"""Seconds that a training waits for its store at most, once each time the store falls silent."""
LONGEST = 900.0
"""Seconds that the last words of a training, its files above all, may take while the store answers."""


class Delivery:
    """Work that speaks to a store, in a thread of its own.

    MLflow's client tries for minutes to reach a server. In a thread that is welcome: whoever waits can go on, and
    the process can end. What is delivered may be delivered again, so nothing is lost or doubled by leaving it.
    """

    def __init__(self, work: Callable[[], object]) -> None:
        """Begin.

        Args:
            work: what to do; it must bear being done twice.
        """
        self._error: Exception | None = None
        self._work = work
        self._thread = threading.Thread(target=self._run, daemon=True, name="mlflow delivery")
        self._thread.start()

    def _run(self) -> None:
        try:
            self._work()
        # Any store may fail in a way of its own (S3, SQL, HTTP), and none of them may end a training.
        except Exception as error:
            self._error = error

    def ended(self, seconds: float = 0.0) -> bool:
        """Wait for the end.

        Args:
            seconds: how long at most.

        Returns:
            Whether it has ended, well or not.
        """
        self._thread.join(seconds)
        return not self._thread.is_alive()

    @property
    def error(self) -> Exception | None:
        """What went wrong, as far as is known yet."""
        return self._error

    def settled(self, uri: str) -> bool:
        """Wait for the end as long as the store answers.

        Args:
            uri: address of the store.

        Returns:
            Whether the work was done.
        """
        deadline = time.monotonic() + LONGEST
        while not self.ended(PATIENCE):
            if time.monotonic() > deadline or not answers(uri):
                return False
        return self._error is None
