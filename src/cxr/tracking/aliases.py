"""The aliases of a registered model, moved together with the promotion log."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime

from cxr.errors import RegistryError, UnknownVersionError
from cxr.promotion.log import (
    ALIASES,
    CANDIDATE,
    CHAMPION,
    EMPTY_LOG,
    AliasState,
    AliasVersions,
    EntryKind,
    PromotionEntry,
    known_aliases,
    previous_champion,
)
from cxr.tracking.alias_permissions import check_moves, expect_permission
from cxr.tracking.health import first_line, hide_passwords
from cxr.tracking.promotion_log import PromotionLog
from cxr.tracking.registry_reader import missing_files
from cxr.tracking.store import Store
from cxr.tracking.users import author

log = logging.getLogger(__name__)

PATIENCE = 20.0
"""Seconds that another process has for what follows its entry: moving the aliases, and storing its decision."""
ATTEMPTS = 50
DECISION = "decision"
"""Tag of a version: the address of the files of the last decision about it."""


class Aliases:
    """The aliases of one registered model and their log.

    An entry is written first and the aliases follow it, so two processes that decide at once cannot both write the
    next entry. If a process is killed in between, the next process completes its move.

    Attributes:
        log: the promotion log.
    """

    def __init__(self, store: Store, registered_name: str) -> None:
        """Open the registered model's log.

        Args:
            store: the tracking store.
            registered_name: name of the registered model, which must exist.

        Raises:
            MissingInputError: if there is no such local store.
            RegistryError: if the store does not answer, or does not know the model.
        """
        self._store, self._name = store, registered_name
        self._client = store.connect_existing()
        from mlflow.exceptions import MlflowException

        try:
            self._client.get_registered_model(registered_name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise UnknownVersionError(
                f"expected a registered model, received registered_name={registered_name!r} at "
                f"{hide_passwords(store.uri)}: {first_line(error)}; run `cxr register` first"
            ) from error
        self.log = PromotionLog(store, registered_name)

    def current(self) -> dict[str, str | None]:
        """Read the registry: alias to version, None if no version has it."""
        aliases = self._client.get_registered_model(self._name).aliases
        return known_aliases({str(alias): str(version) for alias, version in aliases.items()})

    def synchronize(self) -> AliasState:
        """Make log and registry agree: record what a person has moved, and complete moves that were cut off.

        Returns:
            Which versions have the aliases.

        Raises:
            RegistryError: if the login may not complete a move, or write the log.
        """
        with self._expect_permission({}, {}):
            return self._synchronize()

    def _synchronize(self) -> AliasState:
        deadline = time.monotonic() + PATIENCE
        while True:
            # Read the log first: if an entry is written meanwhile, ours will be refused.
            entries = self.log.entries()
            current = self.current()
            last = entries[-1] if entries else EMPTY_LOG
            if not last.applied:
                if _is_half_done(last, current):
                    if time.monotonic() < deadline:
                        time.sleep(0.2)
                        continue
                    log.warning("completing entry %d of the promotion log, left half done", last.number)
                    with self._expect_permission(current, last.after):
                        self._set(current, last.after)
                self.log.mark_applied(last.number)
                continue
            entry = _persons_entry(last, current)
            if entry is None:
                return AliasState(last, current, last.manual_aliases)
            if self.log.append(entry):
                self.log.mark_applied(entry.number)
                log.info("promotion log: %s", entry.sentence())

    def history(self) -> list[PromotionEntry]:
        """Read the log, after recording what persons have changed since its last entry.

        In a store that cannot be written, such a change is the last entry of the answer and is not recorded.

        Returns:
            All entries, oldest first.
        """
        if self._store.is_writable:
            self.synchronize()
            return self.log.entries()
        entries, current = self.log.entries(), self.current()
        last = entries[-1] if entries else EMPTY_LOG
        unrecorded = None if _is_half_done(last, current) else _persons_entry(last, current)
        return entries if unrecorded is None else [*entries, unrecorded]

    def move(
        self,
        state: AliasState,
        kind: EntryKind,
        versions: AliasVersions,
        *,
        manual_aliases: Sequence[str] | None = None,
        candidate: str | None = None,
        reasons: Sequence[str] = (),
        figures: Mapping[str, float] | None = None,
        trained_by: Sequence[str] = (),
        approved_by: str = "",
    ) -> PromotionEntry | None:
        """Write the next entry and let the aliases follow it.

        Args:
            state: what the decision was based on.
            kind: what the entry records.
            versions: alias to version; aliases that are not named stay.
            manual_aliases: aliases that count as set by a person afterwards; None leaves them as they are.
            candidate: version that the decision was about.
            reasons: sentences.
            figures: figures of the comparison, by name.
            trained_by: users that trained a version that begins to wait for approval, or is approved.
            approved_by: user that approved the candidate.

        Returns:
            The entry; None if another process has written the next entry meanwhile: synchronize and decide again.

        Raises:
            RegistryError: if the login may not change the aliases or the log.
        """
        after = known_aliases({**state.versions, **versions})
        entry = PromotionEntry(
            state.last_entry.number + 1,
            datetime.now(UTC),
            kind,
            author(),
            dict(state.versions),
            after,
            tuple(sorted(state.manual_aliases if manual_aliases is None else manual_aliases)),
            candidate,
            tuple(reasons),
            dict(figures or {}),
            trained_by=tuple(trained_by),
            approved_by=approved_by,
        )
        with self._expect_permission(state.versions, after):
            check_moves(self._client, self._name, state.versions, after)
            if not self.log.append(entry):
                return None
            self._set(state.versions, after)
            self.log.mark_applied(entry.number)
        return entry

    def roll_back(self, reason: str) -> PromotionEntry:
        """Make the previous champion champion again; runs then leave the choice alone.

        Args:
            reason: why, for the log.

        Returns:
            The log's new entry.

        Raises:
            RegistryError: if the store cannot be written, there was no other champion, or it cannot answer any more.
        """
        self._store.check_writable()
        for _ in range(ATTEMPTS):
            state = self.synchronize()
            target = previous_champion(self.log.entries())
            if target is None:
                raise RegistryError(
                    f"expected an earlier champion of {self._name}, received champion={state.champion or 'nobody'}, "
                    "before which the promotion log has no other; set the alias in MLflow's page to choose a version"
                )
            self._check_files(target)
            entry = self.move(
                state,
                "rollback",
                {CHAMPION: target},
                manual_aliases=[*{*state.manual_aliases, CHAMPION}],
                candidate=target,
                reasons=[reason] if reason else [],
            )
            if entry is not None:
                return entry
        raise self.busy("try again")

    def release(self) -> PromotionEntry | None:
        """Let runs decide about all aliases again.

        Returns:
            The log's new entry; None if no alias was set by a person.

        Raises:
            RegistryError: if the store cannot be written.
        """
        self._store.check_writable()
        for _ in range(ATTEMPTS):
            state = self.synchronize()
            if not state.manual_aliases:
                return None
            if entry := self.move(state, "release", {}, manual_aliases=()):
                return entry
        raise self.busy("try again")

    def decision_without_files(self) -> PromotionEntry | None:
        """Find the entry of the last decision, by a run or an approval, if its files are not all stored.

        Returns:
            The entry; None if the files are stored, or its version was deleted.
        """
        last = next((entry for entry in reversed(self.log.entries()) if entry.kind in ("run", "approval")), None)
        return last if last is not None and self._lacks_files(last) else None

    def mark_cut_off(self, entry: PromotionEntry) -> None:
        """Record that a decision's files are missing, unless the process that writes them stores them in time.

        Args:
            entry: entry of the decision.
        """
        if entry.cut_off:
            return
        while (datetime.now(UTC) - entry.time).total_seconds() < PATIENCE:
            if not self._lacks_files(entry):
                return
            time.sleep(0.2)
        log.warning("marking entry %d of the promotion log: its run ended before it stored the decision", entry.number)
        if self._decision_address(entry) is not None:  # that of an earlier decision about the version
            self._client.delete_model_version_tag(self._name, str(entry.candidate), DECISION)
        self.log.mark_cut_off(entry.number)

    def busy(self, remedy: str) -> RegistryError:
        """Make the error about a log to which other processes write all the time.

        Args:
            remedy: what to do.
        """
        return RegistryError(
            f"expected a quiet promotion log of {self._name}, received {ATTEMPTS} entries by others meanwhile; {remedy}"
        )

    def _check_files(self, number: str) -> None:
        from mlflow.exceptions import MlflowException

        try:
            version = self._client.get_model_version(self._name, number)
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise RegistryError(
                f"expected version {number} of {self._name}, which was champion before, received none; "
                "it was deleted: set the alias in MLflow's page"
            ) from error
        missing = missing_files(self._store, version)
        if missing:
            raise RegistryError(
                f"expected version {number} of {self._name} with all its files, received one without "
                f"{', '.join(missing)}: it cannot answer; restore the files, or set the alias on another version"
            )

    def _lacks_files(self, entry: PromotionEntry) -> bool:
        from mlflow.exceptions import MlflowException

        try:
            return self._decision_address(entry) != self.log.decision_address(entry.number)  # stored last
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False  # the version was deleted, and its tags with it

    def _decision_address(self, entry: PromotionEntry) -> str | None:
        """Where the files of the last decision about an entry's version are."""
        address = self._client.get_model_version(self._name, str(entry.candidate)).tags.get(DECISION)
        return None if address is None else str(address)

    def _set(self, before: AliasVersions, after: AliasVersions) -> None:
        for alias in ALIASES:
            version = after.get(alias)
            if version == before.get(alias):
                continue
            if version is not None:
                self._client.set_registered_model_alias(self._name, alias, version)
            else:
                self._client.delete_registered_model_alias(self._name, alias)  # also if nobody has it any more

    def _expect_permission(self, before: AliasVersions, after: AliasVersions) -> AbstractContextManager[None]:
        return expect_permission(self._name, self.log.experiment, before, after)


def read_promotion_log(store: Store, registered_name: str) -> list[PromotionEntry]:
    """Read the promotion log, after recording what persons have changed since its last entry.

    Args:
        store: the tracking store.
        registered_name: name of the registered model.

    Returns:
        All entries, oldest first.

    Raises:
        RegistryError: if the store does not answer or does not know the model.
    """
    with store.clear_errors(f"read the promotion log of {registered_name}"):
        return Aliases(store, registered_name).history()


def _is_half_done(last: PromotionEntry, current: AliasVersions) -> bool:
    """Whether a process has written the last entry and not moved all aliases yet."""
    after = known_aliases(last.after)
    moves = all(current.get(alias) in (last.before.get(alias), after.get(alias)) for alias in ALIASES)
    return not last.applied and current != after and moves


def _persons_entry(last: PromotionEntry, current: AliasVersions) -> PromotionEntry | None:
    """The entry about aliases that a person has moved since the last entry; None if nobody has."""
    after = known_aliases(last.after)
    moved = {alias for alias in ALIASES if current.get(alias) != after.get(alias)}
    if not moved:
        return None
    # The candidate is not served: a person who sets or removes that alias ties no run.
    set_by_hand = {alias for alias in moved - {CANDIDATE} if current.get(alias) is not None}
    manual = {*last.manual_aliases} - moved | set_by_hand
    return PromotionEntry(
        last.number + 1, datetime.now(UTC), "person", "a person", after, current, tuple(sorted(manual))
    )
