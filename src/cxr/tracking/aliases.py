"""The aliases of a registered model, moved together with the promotion log."""

from __future__ import annotations

import getpass
import logging
import os
import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cxr.errors import RegistryError
from cxr.promotion.log import ALIASES, CHAMPION, Entry, Kind, Places, one_step_back
from cxr.tracking.artifacts import absent_files
from cxr.tracking.connection import existing_client
from cxr.tracking.promotion_log import PromotionLog

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

PIPELINE_RUN = "CXR_PIPELINE_RUN"
"""Environment variable with the name of the pipeline's run, set where a scheduler starts the steps."""
PATIENCE = 20.0
"""Seconds that another process has for moving the aliases of its entry; then its work is done for it."""
ATTEMPTS = 50


@dataclass(frozen=True)
class Standing:
    """Where the aliases are, as log and registry agree.

    Attributes:
        last: the log's last entry; number 0 for an empty log.
        places: alias to version, None where nobody has it.
        held: aliases that stand as a person has set them.
    """

    last: Entry
    places: Places
    held: tuple[str, ...]

    @property
    def champion(self) -> str | None:
        """Version that is champion."""
        return self.places[CHAMPION]


class Aliases:
    """The aliases of one registered model and their log.

    An entry is written first and the aliases follow it; two processes that decide at once cannot both write the
    next entry. What a killed process has left half done is completed by the next one.

    Attributes:
        log: the promotion log.
    """

    def __init__(self, uri: str, registered_name: str, connected: MlflowClient | None = None) -> None:
        """Open the registered model's log.

        Args:
            uri: address of the store.
            registered_name: name of the registered model, which must exist.
            connected: client of ``uri``, if there is one already.

        Raises:
            MissingInputError: if there is no store.
            RegistryError: if the store doesn't answer, or doesn't know the model.
        """
        from mlflow.exceptions import MlflowException

        self._uri, self._name = uri, registered_name
        self._client = connected or existing_client(uri)
        try:
            self._client.get_registered_model(registered_name)
        except MlflowException as error:
            raise RegistryError(
                f"expected a registered model, received registered_name={registered_name!r} at {uri}: "
                f"{str(error).partition(chr(10))[0]}; run `cxr register` first"
            ) from error
        self.log = PromotionLog(self._client, uri, registered_name)

    def current(self) -> dict[str, str | None]:
        """Read the registry.

        Returns:
            Alias to version, None where nobody has it.
        """
        found = self._client.get_registered_model(self._name).aliases
        return {alias: str(found[alias]) if alias in found else None for alias in ALIASES}

    def settle(self) -> Standing:
        """Bring log and registry in line: what a person has moved gets an entry, half-done moves are completed.

        Returns:
            Where the aliases are.
        """
        deadline = time.monotonic() + PATIENCE
        while True:
            # The log first: an entry that is written meanwhile then stands in the way of ours.
            entries = self.log.entries()
            current = self.current()
            last = entries[-1] if entries else _BEGINNING
            after = {alias: last.after.get(alias) for alias in ALIASES}
            if not last.applied:
                between = all(current[alias] in (last.before.get(alias), after[alias]) for alias in ALIASES)
                if current != after and between:
                    if time.monotonic() < deadline:
                        time.sleep(0.2)
                        continue
                    log.warning("completing entry %d of the promotion log, left half done", last.number)
                    self._set(current, after)
                self.log.mark_applied(last.number)
                continue
            moved = {alias for alias in ALIASES if current[alias] != after[alias]}
            if not moved:
                return Standing(last, current, last.held)
            held = {*last.held} - moved | {alias for alias in moved if current[alias] is not None}
            entry = Entry(last.number + 1, datetime.now(UTC), "person", "a person", after, current, tuple(sorted(held)))
            if self.log.append(entry):
                self.log.mark_applied(entry.number)
                log.info("promotion log: %s", entry.sentence())

    def move(
        self,
        standing: Standing,
        kind: Kind,
        places: Places,
        *,
        held: Sequence[str] | None = None,
        candidate: str | None = None,
        reasons: Sequence[str] = (),
        figures: Mapping[str, float] | None = None,
    ) -> Entry | None:
        """Write the next entry and let the aliases follow it.

        Args:
            standing: what the decision was made on.
            kind: what the entry tells about.
            places: alias to version; aliases that are not named stay.
            held: aliases that a person has set afterwards; None leaves them as they are.
            candidate: version that was looked at.
            reasons: sentences.
            figures: what was compared, by name.

        Returns:
            The entry; None if somebody else has written the next entry meanwhile: settle and decide anew.
        """
        after = {**standing.places, **places}
        entry = Entry(
            standing.last.number + 1,
            datetime.now(UTC),
            kind,
            author(),
            dict(standing.places),
            after,
            tuple(sorted(standing.held if held is None else held)),
            candidate,
            tuple(reasons),
            dict(figures or {}),
        )
        if not self.log.append(entry):
            return None
        self._set(standing.places, after)
        self.log.mark_applied(entry.number)
        return entry

    def roll_back(self, reason: str = "") -> Entry:
        """Make the version champion that was it before; runs then leave the choice alone.

        Args:
            reason: why, for the log.

        Returns:
            The log's new entry.

        Raises:
            RegistryError: if there was no other champion, or it cannot answer any more.
        """
        for _ in range(ATTEMPTS):
            standing = self.settle()
            target = one_step_back(self.log.entries())
            if target is None:
                raise RegistryError(
                    f"expected an earlier champion of {self._name}, received champion={standing.champion} "
                    "as the only one in the log; set the alias in MLflow's page"
                )
            self._expect_whole(target)
            held = {*standing.held, CHAMPION}
            reasons = [reason] if reason else []
            if entry := self.move(
                standing, "rollback", {CHAMPION: target}, held=sorted(held), candidate=target, reasons=reasons
            ):
                return entry
        raise self._busy()

    def release(self) -> Entry | None:
        """Let runs decide about all aliases again.

        Returns:
            The log's new entry, None if no alias was held.
        """
        for _ in range(ATTEMPTS):
            standing = self.settle()
            if not standing.held:
                return None
            if entry := self.move(standing, "release", {}, held=()):
                return entry
        raise self._busy()

    def _expect_whole(self, version: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            found = self._client.get_model_version(self._name, version)
        except MlflowException as error:
            raise RegistryError(
                f"expected version {version} of {self._name}, which was champion before, received none; "
                "it was deleted: set the alias in MLflow's page"
            ) from error
        absent = absent_files(self._uri, found)
        if absent:
            raise RegistryError(
                f"expected version {version} of {self._name} with all its files, received one without "
                f"{', '.join(absent)}: it cannot answer; restore the files, or set the alias on another version"
            )

    def _set(self, before: Places, after: Places) -> None:
        from mlflow.exceptions import MlflowException

        for alias in ALIASES:
            version = after.get(alias)
            if version == before.get(alias):
                continue
            if version is not None:
                self._client.set_registered_model_alias(self._name, alias, version)
            else:
                with suppress(MlflowException):
                    self._client.delete_registered_model_alias(self._name, alias)

    def _busy(self) -> RegistryError:
        return RegistryError(
            f"expected a quiet promotion log of {self._name}, received {ATTEMPTS} entries by others meanwhile; "
            "try again"
        )


_BEGINNING = Entry(0, datetime.min.replace(tzinfo=UTC), "person", "", {}, {}, applied=True)


def author() -> str:
    """Say who is at work, for the log.

    Returns:
        The pipeline's run where one is set, else account and machine.
    """
    run = os.environ.get(PIPELINE_RUN)
    if run:
        return f"pipeline run {run}"
    try:
        account = getpass.getuser()
    except (KeyError, OSError):  # containers run under numbers without a name
        account = f"user {os.getuid()}"
    return f"{account} on {socket.gethostname()}"
