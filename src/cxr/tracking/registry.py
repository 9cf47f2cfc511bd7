"""Registration: models of a run become versions, and the promotion rules decide who is challenger and champion."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from cxr.promotion.candidates import Candidate, RunFolders, find_candidates
from cxr.promotion.comparison import VersionComparison, are_comparable, compare_versions
from cxr.promotion.facts import AnyPolicy, CommonFacts, is_pinned
from cxr.promotion.log import CHALLENGER, CHAMPION, AliasState, PromotionEntry
from cxr.promotion.report import Registration
from cxr.promotion.rules import PromotionDecision, choose_challenger, decide
from cxr.tracking.aliases import ATTEMPTS, DECISION, Aliases
from cxr.tracking.finished_run import log_evaluation
from cxr.tracking.promotion_log import PromotionLog
from cxr.tracking.registry_reader import fetch_version, read_facts
from cxr.tracking.store import Store
from cxr.tracking.versions import check_kind, ensure_registered_model, ensure_version

log = logging.getLogger(__name__)

RECOMMENDED = "recommended"
"""Tag of a version: the alias that only a person's choice withholds."""


def register(
    store: Store, run: RunFolders, *, experiment: str, registered_name: str, policy: AnyPolicy
) -> Registration:
    """Register the models of a run, move the aliases, and add to the promotion log.

    A model that is registered already is not registered again. Aliases that a person has set stay.

    Args:
        store: the tracking store.
        run: where the models are.
        experiment: name of the experiment, for runs that the store does not know.
        registered_name: name of the registered model.
        policy: limits of the promotion rules about models of this kind.

    Returns:
        What was done.

    Raises:
        MissingInputError: if a requested model is missing, or none is evaluated.
        DataError: if ``run.splits`` is not the split that the models were judged on.
        RegistryError: if the store does not answer, the models were judged on different splits, or the registered model
            holds versions of the other kind.
    """
    candidates = find_candidates(run)
    store.connect()
    ensure_registered_model(store, registered_name, detectors=run.detectors)
    check_kind(store, registered_name, detectors=run.detectors)
    aliases = Aliases(store, registered_name)
    aliases.log.close_run()
    facts: list[CommonFacts] = []
    new_versions: list[str] = []
    for candidate in candidates:
        run_id = log_evaluation(store, candidate.trained, candidate.evaluation, experiment=experiment)
        version, is_new = ensure_version(store, registered_name, candidate, run_id)
        _keep_predictions(aliases.log, str(version.version), candidate, run.splits)
        facts.append(read_facts(store, version, policy.FACTS))
        if is_new:
            new_versions.append(str(version.version))
    promotion = _Promotion(store, registered_name, aliases, policy, run.data)
    challenger = choose_challenger(facts, policy.choose_by)
    decision, entry, comparison = promotion.run(challenger) if challenger else (None, None, None)
    state = aliases.synchronize()
    return Registration(
        registered_name,
        store.uri,
        tuple(sorted(facts, key=lambda version_facts: -version_facts.choice_figure(policy.choose_by))),
        tuple(new_versions),
        state.versions,
        state.manual_aliases,
        decision,
        comparison,
        policy,
        entry.number if entry else None,
        promotion.notes(state),
    )


def store_decision(store: Store, registration: Registration, folder: Path) -> None:
    """Copy the files of a decision to the store, and tag the version with their address.

    Args:
        store: the tracking store.
        registration: what the run did.
        folder: folder whose files are copied.
    """
    if registration.entry is None or registration.decision is None:
        return
    name = registration.registered_name
    address = Aliases(store, name).log.save_decision(folder, registration.entry)
    store.client.set_model_version_tag(name, registration.decision.candidate, DECISION, address)


def _keep_predictions(promotion_log: PromotionLog, version: str, candidate: Candidate, splits: Path) -> None:
    """Store what a version achieved in each image of its split, unless it is stored whole already."""
    import pandas as pd

    from cxr.evaluation.pairing import split_with_predictions
    from cxr.files import PREDICTIONS_FILE, SPLITS_FILE
    from cxr.regions.evaluation import PER_IMAGE
    from cxr.regions.files import IMAGES_FILE

    if promotion_log.load_predictions(version) is None:
        is_detector = candidate.metadata.detector is not None
        name, column = (IMAGES_FILE, PER_IMAGE) if is_detector else (PREDICTIONS_FILE, "probability")
        predictions = pd.read_parquet(candidate.evaluation / name)
        table = split_with_predictions(pd.read_parquet(splits / SPLITS_FILE), predictions, column)
        promotion_log.save_predictions(version, table)


class _Promotion:
    """Decides about one challenger and writes the decision down; decides again if another run was faster."""

    def __init__(
        self, store: Store, registered_name: str, aliases: Aliases, policy: AnyPolicy, data: Path | None
    ) -> None:
        self._store, self._name, self._aliases, self._policy, self._data = store, registered_name, aliases, policy, data
        self._comparisons: dict[str, VersionComparison] = {}

    def run(self, challenger: CommonFacts) -> tuple[PromotionDecision, PromotionEntry | None, VersionComparison | None]:
        """Decide; returns the decision, its log entry unless the log said the same already, and the comparison.

        If a registration was killed after its entry was written, its decision is made once more and returned with that
        entry, for the files and tags that are still to be written. If this run decides otherwise, with other models or
        another policy, that entry is marked.
        """
        for _ in range(ATTEMPTS):
            state = self._aliases.synchronize()
            cut_off = self._aliases.decision_without_files()
            if cut_off is not None:
                if cut_off == state.last_entry and self._can_repeat(cut_off, challenger):
                    decision, after, comparison = self._decide(challenger, state.before_last_entry)
                    if (after, decision.reasons) == (dict(cut_off.after), cut_off.reasons):
                        log.warning("completing the decision of entry %d of the promotion log", cut_off.number)
                        self._tag_recommendation(decision)
                        return decision, cut_off, comparison
                self._aliases.mark_cut_off(cut_off)
            decision, after, comparison = self._decide(challenger, state)
            if state.records(challenger.version, after, decision.reasons if decision.rules else None):
                return decision, None, comparison
            entry = self._aliases.move(
                state,
                "run",
                after,
                candidate=challenger.version,
                reasons=decision.reasons,
                figures=comparison.figures() if comparison else {},
            )
            if entry is not None:
                self._tag_recommendation(decision)
                return decision, entry, comparison
        raise self._aliases.busy("register again")

    def _decide(
        self, challenger: CommonFacts, state: AliasState
    ) -> tuple[PromotionDecision, dict[str, str | None], VersionComparison | None]:
        """The decision, the aliases after it, and the comparison with the champion."""
        champion = self._facts(state.champion)
        comparison = self._compare(challenger, champion)
        decision = decide(
            challenger, champion, self._policy, comparison=comparison, chosen_by_person=CHAMPION in state.manual_aliases
        )
        after = {**state.versions, CHAMPION: decision.champion}
        if self._may_move_challenger(state):
            after[CHALLENGER] = challenger.version
        return decision, after, comparison

    def _can_repeat(self, entry: PromotionEntry, challenger: CommonFacts) -> bool:
        """Whether an entry is about this challenger, and the versions before it are still there."""
        versions = self._store.client.search_model_versions(f"name = '{self._name}'")
        numbers = {str(version.version) for version in versions}
        return entry.candidate == challenger.version and set(entry.before.values()) <= {None, *numbers}

    def notes(self, state: AliasState) -> tuple[str, ...]:
        """Sentences about a champion that cannot answer."""
        champion = self._facts(state.champion)
        if champion is None or not champion.missing_files:
            return ()
        note = (
            f"Champion version {champion.version} has lost {', '.join(champion.missing_files)}: it cannot answer and "
            "is not served. Restore its files, or run `cxr rollback`."
        )
        log.warning(note)
        return (note,)

    def _facts(self, version: str | None) -> CommonFacts | None:
        if version is None:
            return None
        registered = self._store.client.get_model_version(self._name, version)
        return read_facts(self._store, registered, self._policy.FACTS)

    def _compare(self, challenger: CommonFacts, champion: CommonFacts | None) -> VersionComparison | None:
        if champion is None or not are_comparable(challenger, champion):
            return None
        if champion.version not in self._comparisons:
            self._comparisons[champion.version] = compare_versions(
                challenger,
                champion,
                self._policy,
                candidate_images=self._aliases.log.load_predictions(challenger.version),
                champion_images=self._aliases.log.load_predictions(champion.version),
                fetch_champion=partial(fetch_version, self._store, self._name, champion.version),
                data=self._data,
            )
        return self._comparisons[champion.version]

    def _may_move_challenger(self, state: AliasState) -> bool:
        if CHALLENGER in state.manual_aliases:
            return False
        current = state.versions[CHALLENGER]
        return current is None or not is_pinned(self._store.client.get_model_version(self._name, current).tags)

    def _tag_recommendation(self, decision: PromotionDecision) -> None:
        """Tag the version that only a person's choice withholds; a champion needs no recommendation."""
        client = self._store.client
        for version in {decision.candidate, decision.champion} - {None}:
            is_recommended = decision.recommended and version == decision.candidate
            is_tagged = RECOMMENDED in client.get_model_version(self._name, version).tags
            if is_recommended and not is_tagged:
                client.set_model_version_tag(self._name, version, RECOMMENDED, CHAMPION)
            elif is_tagged and not is_recommended:
                client.delete_model_version_tag(self._name, version, RECOMMENDED)
