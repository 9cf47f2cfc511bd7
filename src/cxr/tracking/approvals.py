"""Approval by a second person: the version that waits, and how it becomes champion."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import CxrError, ParameterError, RegistryError
from cxr.files import scratch_folder
from cxr.promotion.comparison import VersionComparison
from cxr.promotion.facts import CommonFacts
from cxr.promotion.log import (
    CANDIDATE,
    EMPTY_LOG,
    AliasState,
    PromotionEntry,
    began_to_wait,
    join_names,
    known_aliases,
)
from cxr.promotion.policy import AnyPolicy, DetectorPolicy, PromotionPolicy
from cxr.promotion.report import DECISION_FILE, Registration, write_decision
from cxr.promotion.rules import Approval, PromotionDecision
from cxr.tracking.aliases import ATTEMPTS, DECISION, Aliases
from cxr.tracking.promotion import APPROVAL_REASON, APPROVED_BY, Promotion
from cxr.tracking.registry_reader import read_facts
from cxr.tracking.store import Store
from cxr.tracking.users import is_same_user
from cxr.tracking.versions import DETECTION, TASK

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)

APPROVAL_TAG = "approval"
"""Tag of a version that was approved: by whom, when and why."""
NO_REASON = "approved in MLflow's page without a reason"
MAX_LENGTHS = {APPROVED_BY: 100, APPROVAL_REASON: 1000}
"""Characters of a tag that go into the promotion log."""


class Approvals:
    """Approvals of versions of one registered model."""

    def __init__(self, store: Store, registered_name: str, data: Path | None, aliases: Aliases | None = None) -> None:
        """Open the registered model's log.

        Args:
            store: the tracking store.
            registered_name: name of the registered model, which must exist.
            data: folder of the raw images, for a champion that must predict new ones; None if not at hand.
            aliases: those of the registered model, if they are open already.

        Raises:
            MissingInputError: if there is no such local store.
            RegistryError: if the store does not answer, or does not know the model.
        """
        self._store, self._name, self._data = store, registered_name, data
        self._aliases = aliases or Aliases(store, registered_name)

    def waiting(self) -> PromotionEntry | None:
        """Find the entry by which the present candidate began to wait; None if no version waits."""
        return began_to_wait(self._aliases.history())

    def approve(self, number: str, user: str, reason: str) -> PromotionEntry:
        """Make the version that waits champion, if all rules still hold.

        The limits are those of the decision that let it wait. A second call with the same version changes nothing.

        Args:
            number: number of the version.
            user: who approves it.
            reason: why, for the log.

        Returns:
            The log's entry about the approval.

        Raises:
            ParameterError: if the version does not wait, or the user has trained it.
            RegistryError: if the store cannot be written, the user may not change the model, a rule is broken by now,
                or the decision has no files.
        """
        self._store.check_writable()
        self.complete()
        for _ in range(ATTEMPTS):
            state, entries = self._aliases.synchronize(), self._aliases.log.entries()
            earlier = next((entry for entry in reversed(entries) if entry.moved), EMPTY_LOG)
            if earlier.kind == "approval" and earlier.champion == number:
                return earlier
            waits = self._check_waits(entries, number)
            approval = Approval(user, waits.trained_by, reason)
            self._check_user(number, approval)
            facts, promotion = self._prepare(number, entries)
            decision, after, comparison = promotion.decide(facts, state, approval)
            if not decision.promote:
                raise RegistryError(
                    f"expected version {number} of {self._name} to keep the rules still, received a broken one: "
                    f"{'; '.join(decision.reasons)}; it stays candidate until the next `cxr register`"
                )
            entry = self._aliases.move(
                state,
                "approval",
                {CANDIDATE: None, **after},
                candidate=number,
                reasons=[reason],
                figures=comparison.figures() if comparison else {},
                trained_by=approval.trained_by,
                approved_by=user,
            )
            if entry is not None:
                self._store_decision(entry, facts, promotion, decision, comparison)
                return entry
        raise self._aliases.busy("try again")

    def requested(self) -> tuple[str, str, str] | None:
        """Read what a user has set in MLflow's page: version, user and reason; None if no version that waits has it."""
        waits = self.waiting()
        if waits is None:
            return None
        number = str(waits.waiting)
        tags = self._store.client.get_model_version(self._name, number).tags
        user, reason = (" ".join(tags.get(tag, "").split())[:length] for tag, length in MAX_LENGTHS.items())
        return (number, user, reason or NO_REASON) if user else None

    def carry_out_request(self) -> PromotionEntry | None:
        """Carry out an approval that a user has set in MLflow's page.

        Returns:
            The log's entry about it; None if there is no such approval.

        Raises:
            CxrError: as :meth:`approve`.
        """
        request = self.requested()
        return self.approve(*request) if request else None

    def try_request(self) -> tuple[str, ...]:
        """Carry out an approval that was set in MLflow's page; one that is refused does not stop a run.

        Returns:
            Sentences about it for the reader, which are logged, too.
        """
        try:
            entry = self.carry_out_request()
        except CxrError as error:
            note = f"The approval in MLflow's page was refused: {error}"
            log.warning(note)
            return (note,)
        if entry is None:
            return ()
        note = f"An approval in MLflow's page was carried out: {entry.sentence()}."
        log.info(note)
        return (note,)

    def complete(self) -> None:
        """Store the files and tags of an approval whose process was killed after its entry was written."""
        state = self._aliases.synchronize()
        entry = self._aliases.decision_without_files()
        if entry is None or entry.kind != "approval":
            return
        numbers = {str(version.version) for version in self._versions()}
        entries = [earlier for earlier in self._aliases.log.entries() if earlier.number < entry.number]
        if not set(entry.before.values()) <= {None, *numbers}:
            self._aliases.mark_cut_off(entry)
            return
        log.warning("completing the approval of entry %d of the promotion log", entry.number)
        before = AliasState(state.last_entry, known_aliases(entry.before), entry.manual_aliases)
        approval = Approval(entry.approved_by, entry.trained_by, " ".join(entry.reasons))
        facts, promotion = self._prepare(str(entry.candidate), entries)
        decision, _, comparison = promotion.decide(facts, before, approval)
        self._store_decision(entry, facts, promotion, decision, comparison)

    def _prepare(self, number: str, entries: Sequence[PromotionEntry]) -> tuple[CommonFacts, Promotion]:
        """Facts of a version, and its promotion by the limits of the decision that let it wait."""
        version = self._store.client.get_model_version(self._name, number)
        policy = self._read_policy(version, entries)
        promotion = Promotion(self._store, self._name, self._aliases, policy, self._data)
        return read_facts(self._store, version, policy.FACTS), promotion

    def _read_policy(self, version: ModelVersion, entries: Sequence[PromotionEntry]) -> AnyPolicy:
        number = str(version.version)
        decided = next(
            entry for entry in reversed(entries) if entry.kind == "run" and number == entry.candidate == entry.waiting
        )
        if version.tags.get(DECISION) != self._aliases.log.decision_address(decided.number):
            raise RegistryError(
                f"expected version {number} of {self._name} with the files of its decision, received none of entry "
                f"{decided.number} of the promotion log: its run was cut off; run `cxr register` again"
            )
        values = self._aliases.log.read_decision_file(decided.number, DECISION_FILE)["policy"]
        if version.tags.get(TASK) == DETECTION:
            return DetectorPolicy.from_dict(values)
        return PromotionPolicy.from_dict(values)

    def _check_waits(self, entries: Sequence[PromotionEntry], number: str) -> PromotionEntry:
        waits = began_to_wait(entries)
        if waits is not None and waits.waiting == number:
            return waits
        state = f"version {waits.waiting}, which waits since {waits.time:%Y-%m-%d %H:%M} UTC" if waits else "none"
        raise ParameterError(
            [f"expected a version that waits for approval, received version={number}; there is {state}: look at "
             "`cxr approve --list true` and `cxr history`"]
        )  # fmt: skip

    def _check_user(self, number: str, approval: Approval) -> None:
        if any(is_same_user(approval.approved_by, user) for user in approval.trained_by):
            raise ParameterError(
                [f"expected the approval of another user than {join_names(approval.trained_by)}, who trained "
                 f"version {number}, received user={approval.approved_by!r}; ask a colleague to approve it under their "
                 "own name"]
            )  # fmt: skip

    def _store_decision(
        self,
        entry: PromotionEntry,
        facts: CommonFacts,
        promotion: Promotion,
        decision: PromotionDecision,
        comparison: VersionComparison | None,
    ) -> None:
        client, number = self._store.client, str(entry.candidate)
        registration = Registration(
            self._name, self._store.uri, (facts,), (), entry.after, entry.manual_aliases, decision, comparison,
            promotion.policy, entry.number,
        )  # fmt: skip
        promotion.tag_recommendation(decision)
        approval = Approval(entry.approved_by, entry.trained_by, " ".join(entry.reasons))
        text = f"{approval.sentence()} ({entry.time:%Y-%m-%d %H:%M:%S} UTC)"
        client.set_model_version_tag(self._name, number, APPROVAL_TAG, text)
        for tag in {APPROVED_BY, APPROVAL_REASON} & set(client.get_model_version(self._name, number).tags):
            client.delete_model_version_tag(self._name, number, tag)
        with scratch_folder() as folder:
            write_decision(folder, registration)
            address = self._aliases.log.save_decision(folder, entry.number)
        client.set_model_version_tag(self._name, number, DECISION, address)  # last: it says that all is stored

    def _versions(self) -> Sequence[ModelVersion]:
        return list(self._store.client.search_model_versions(f"name = '{self._name}'"))


def waiting_versions(store: Store) -> list[tuple[str, PromotionEntry]]:
    """Find all versions of a store that wait for approval.

    Args:
        store: the tracking store.

    Returns:
        Pairs of registered model and the entry by which its candidate began to wait.

    Raises:
        RegistryError: if the store does not answer.
    """
    client = store.connect()
    with store.clear_errors("name the versions that wait for approval"):
        candidates = {
            str(model.name): str(model.aliases[CANDIDATE])
            for model in client.search_registered_models()
            if CANDIDATE in model.aliases
        }
        # The log is only read: models of other programs may have such an alias, too.
        entries = [(name, began_to_wait(Aliases(store, name).log.entries())) for name in candidates]
    return [(name, entry) for name, entry in entries if entry is not None and entry.waiting == candidates[name]]
