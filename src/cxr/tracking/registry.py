"""Registration: models of a run become versions, and the promotion rules decide who is challenger and champion."""

from __future__ import annotations

from pathlib import Path

from cxr.promotion.candidates import Candidate, RunFolders, check_figures, find_candidates
from cxr.promotion.facts import CommonFacts
from cxr.promotion.policy import AnyPolicy
from cxr.promotion.report import Registration
from cxr.promotion.rules import choose_challenger
from cxr.tables import read_table
from cxr.tracking.aliases import DECISION, Aliases
from cxr.tracking.approvals import Approvals
from cxr.tracking.finished_run import log_evaluation
from cxr.tracking.promotion import Promotion
from cxr.tracking.promotion_log import PromotionLog
from cxr.tracking.registry_reader import read_facts
from cxr.tracking.slice_record import update_slices
from cxr.tracking.store import Store
from cxr.tracking.versions import check_kind, ensure_registered_model, ensure_version


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
        ParameterError: if the policy limits a figure that a model was not measured in.
        RegistryError: if the store does not answer, the models were judged on different splits, or the registered model
            holds versions of the other kind.
    """
    candidates = find_candidates(run)
    check_figures(candidates, policy)
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
        version = update_slices(store, version, candidate)
        _keep_predictions(aliases.log, str(version.version), candidate, run.splits)
        facts.append(read_facts(store, version, policy.FACTS))
        if is_new:
            new_versions.append(str(version.version))
    approvals = Approvals(store, registered_name, run.data, aliases)
    approvals.complete()
    notes = approvals.try_request() if policy.require_approval else ()
    promotion = Promotion(store, registered_name, aliases, policy, run.data)
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
        (*notes, *promotion.notes(state)),
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
    address = PromotionLog(store, name).save_decision(folder, registration.entry)
    store.client.set_model_version_tag(name, registration.decision.candidate, DECISION, address)


def _keep_predictions(promotion_log: PromotionLog, version: str, candidate: Candidate, splits: Path) -> None:
    """Store what a version achieved in each image of its split, unless it is stored whole already."""
    from cxr.evaluation.pairing import split_with_predictions
    from cxr.files import PREDICTIONS_FILE, SPLITS_FILE
    from cxr.regions.evaluation import PER_IMAGE
    from cxr.regions.files import IMAGES_FILE

    if promotion_log.load_predictions(version) is None:
        is_detector = candidate.metadata.detector is not None
        name, column = (IMAGES_FILE, PER_IMAGE) if is_detector else (PREDICTIONS_FILE, "probability")
        predictions = read_table(candidate.evaluation / name)
        table = split_with_predictions(read_table(splits / SPLITS_FILE), predictions, column)
        promotion_log.save_predictions(version, table)
