"""The decision about one challenger: made, written into the promotion log with its tags, and completed if cut off."""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from pathlib import Path

from cxr.data.image_opening import open_raw_images
from cxr.promotion.comparison import VersionComparison, are_comparable, compare_versions
from cxr.promotion.facts import CommonFacts, is_pinned
from cxr.promotion.log import (
    CANDIDATE,
    CHALLENGER,
    CHAMPION,
    AliasState,
    PromotionEntry,
    began_to_wait,
    known_aliases,
    waiting_sentence,
)
from cxr.promotion.policy import AnyPolicy
from cxr.promotion.rules import Approval, PromotionDecision
from cxr.promotion.rules import decide as decide_by_rules
from cxr.tracking.aliases import ATTEMPTS, Aliases
from cxr.tracking.registry_reader import fetch_version, read_facts, why_unverified
from cxr.tracking.store import Store
from cxr.tracking.users import trainers

log = logging.getLogger(__name__)

RECOMMENDED = "recommended"
"""Tag of a version: the alias that only a person's choice withholds."""
APPROVED_BY, APPROVAL_REASON = "approved_by", "approval_reason"
"""Tags by which a user approves, in MLflow's page, the version that waits: a name, and why."""


class Promotion:
    """Decides about one challenger and writes the decision down; decides again if another run was faster.

    Attributes:
        policy: limits of the rules.
    """

    def __init__(
        self, store: Store, registered_name: str, aliases: Aliases, policy: AnyPolicy, data: Path | None
    ) -> None:
        """Prepare decisions.

        Args:
            store: the tracking store.
            registered_name: name of the registered model.
            aliases: its aliases.
            policy: limits of the rules.
            data: folder of the raw images, for a champion that must predict new ones; None if not at hand.
        """
        self._store, self._name, self._aliases, self._data = store, registered_name, aliases, data
        self.policy = policy
        self._comparisons: dict[str, VersionComparison] = {}
        self._missing_files: dict[str, tuple[str, ...]] = {}

    def run(self, challenger: CommonFacts) -> tuple[PromotionDecision, PromotionEntry | None, VersionComparison | None]:
        """Decide; returns the decision, its log entry unless the log said the same already, and the comparison.

        If a registration was killed after its entry was written, its decision is made once more and returned with that
        entry, for the files and tags that are still to be written. If this run decides otherwise, with other models or
        another policy, that entry is marked.

        Args:
            challenger: facts of the version that this run has chosen.

        Returns:
            The decision, the entry and the comparison.

        Raises:
            RegistryError: if other processes write to the log all the time.
        """
        for _ in range(ATTEMPTS):
            state = self._aliases.synchronize()
            cut_off = self._aliases.decision_without_files()
            if cut_off is not None:
                if cut_off == state.last_entry and self._can_repeat(cut_off, challenger):
                    decision, after, comparison = self.decide(challenger, state.before_last_entry)
                    if (after, decision.reasons) == (dict(cut_off.after), cut_off.reasons):
                        log.warning("completing the decision of entry %d of the promotion log", cut_off.number)
                        self.tag_recommendation(decision)
                        return decision, cut_off, comparison
                self._aliases.mark_cut_off(cut_off)
            decision, after, comparison = self.decide(challenger, state)
            if state.records(challenger.version, after, decision.reasons if decision.rules else None):
                return decision, None, comparison
            entry = self._aliases.move(
                state,
                "run",
                {CANDIDATE: None, **after},
                candidate=challenger.version,
                reasons=decision.reasons,
                figures=comparison.figures() if comparison else {},
                trained_by=self._begin_to_wait(challenger.version) if decision.waits else (),
            )
            if entry is not None:
                self.tag_recommendation(decision)
                return decision, entry, comparison
        raise self._aliases.busy("register again")

    def decide(
        self, challenger: CommonFacts, state: AliasState, approval: Approval | None = None
    ) -> tuple[PromotionDecision, dict[str, str | None], VersionComparison | None]:
        """Look at all rules; nothing is written.

        Args:
            challenger: facts of the version that may become champion.
            state: which versions have the aliases.
            approval: of that version; None if nobody has approved it.

        Returns:
            The decision, the aliases after it, and the comparison with the champion.
        """
        champion = self._facts(state.champion)
        comparison = self._compare(challenger, champion)
        self._missing_files[challenger.version] = challenger.missing_files
        is_champion = champion is not None and champion.version == challenger.version
        if self._store.trusted_keys is not None and not is_champion:
            registered = self._store.client.get_model_version(self._name, challenger.version)
            challenger = replace(challenger, unverified=why_unverified(self._store, registered))
        decision = decide_by_rules(
            challenger,
            champion,
            self.policy,
            comparison=comparison,
            chosen_by_person=CHAMPION in state.manual_aliases,
            waiting=self._facts(state.waiting) if self.policy.require_approval else None,
            approval=approval,
        )
        after = {**state.versions, CHAMPION: decision.champion, CANDIDATE: self._candidate_after(state, decision)}
        if approval is None and self._may_move_challenger(state):
            after[CHALLENGER] = challenger.version
        return decision, known_aliases(after), comparison

    def _candidate_after(self, state: AliasState, decision: PromotionDecision) -> str | None:
        if not self.policy.require_approval:
            return None
        if decision.waits:
            return decision.candidate
        # A version that is champion, or no longer keeps the rules, does not wait.
        return None if state.waiting in (decision.candidate, decision.champion) else state.waiting

    def _begin_to_wait(self, number: str) -> tuple[str, ...]:
        """Remove tags of an earlier approval and name the users that trained a version; nobody if it waits already."""
        entry = began_to_wait(self._aliases.log.entries())
        if entry is not None and entry.waiting == number:
            return ()
        version = self._store.client.get_model_version(self._name, number)
        for tag in (APPROVED_BY, APPROVAL_REASON):
            if tag in version.tags:
                log.warning("the tag %s of version %s is removed: it is older than this decision", tag, number)
                self._store.client.delete_model_version_tag(self._name, number, tag)
        return trainers(self._store, version)

    def _can_repeat(self, entry: PromotionEntry, challenger: CommonFacts) -> bool:
        """Whether an entry is about this challenger, and the versions before it are still there."""
        versions = self._store.client.search_model_versions(f"name = '{self._name}'")
        numbers = {str(version.version) for version in versions}
        return entry.candidate == challenger.version and set(entry.before.values()) <= {None, *numbers}

    def notes(self, state: AliasState) -> tuple[str, ...]:
        """Write sentences about a champion that cannot answer, and a version that waits for approval.

        Args:
            state: which versions have the aliases.

        Returns:
            The sentences, which are logged, too.
        """
        return (*self._champion_notes(state), *self._waiting_notes())

    def _waiting_notes(self) -> tuple[str, ...]:
        entry = began_to_wait(self._aliases.log.entries())
        if entry is None:
            return ()
        note = waiting_sentence(entry)
        log.info(note)
        return (note,)

    def _champion_notes(self, state: AliasState) -> tuple[str, ...]:
        if state.champion is not None and state.champion not in self._missing_files:
            self._facts(state.champion)
        missing = self._missing_files.get(state.champion or "", ())
        if not missing:
            return ()
        note = (
            f"Champion version {state.champion} has lost {', '.join(missing)}: it cannot answer and "
            "is not served. Restore its files, or run `cxr rollback`."
        )
        log.warning(note)
        return (note,)

    def _facts(self, version: str | None) -> CommonFacts | None:
        if version is None:
            return None
        registered = self._store.client.get_model_version(self._name, version)
        facts = read_facts(self._store, registered, self.policy.FACTS)
        self._missing_files[version] = facts.missing_files
        return facts

    def _compare(self, challenger: CommonFacts, champion: CommonFacts | None) -> VersionComparison | None:
        if champion is None or not are_comparable(challenger, champion):
            return None
        if champion.version not in self._comparisons:
            self._comparisons[champion.version] = compare_versions(
                challenger,
                champion,
                self.policy,
                candidate_images=self._aliases.log.load_predictions(challenger.version),
                champion_images=self._aliases.log.load_predictions(champion.version),
                fetch_champion=partial(fetch_version, self._store, self._name, champion.version),
                raw=None if self._data is None else open_raw_images(self._data),
            )
        return self._comparisons[champion.version]

    def _may_move_challenger(self, state: AliasState) -> bool:
        if CHALLENGER in state.manual_aliases:
            return False
        current = state.versions[CHALLENGER]
        return current is None or not is_pinned(self._store.client.get_model_version(self._name, current).tags)

    def tag_recommendation(self, decision: PromotionDecision) -> None:
        """Tag the version that only a person's choice withholds; a champion needs no recommendation.

        Args:
            decision: the decision about it.
        """
        client = self._store.client
        for version in {decision.candidate, decision.champion} - {None}:
            is_recommended = decision.recommended and version == decision.candidate
            is_tagged = RECOMMENDED in client.get_model_version(self._name, version).tags
            if is_recommended and not is_tagged:
                client.set_model_version_tag(self._name, version, RECOMMENDED, CHAMPION)
            elif is_tagged and not is_recommended:
                client.delete_model_version_tag(self._name, version, RECOMMENDED)
