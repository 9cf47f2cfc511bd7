"""The model registry: versions that run on their own, their aliases, and the log of promotions."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import RegistryError
from cxr.promotion import Decision, Facts, Policy, Registration, choose, decide
from cxr.tracking.connection import client
from cxr.tracking.facts import facts_of
from cxr.tracking.runs import log_evaluation
from cxr.tracking.versions import candidates, ensure_version

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

CHAMPION, CHALLENGER = "champion", "challenger"
RECOMMENDED = "recommended"
SET_BY_RUN = "set_by_run."
"""Tag of the registered model, with an alias behind it: the version that a run has last given the alias,
behind the one before while it is being moved. An alias on any other version was set by a person."""
LOG_ENTRY = "promotion."
"""Tag of a version, with a time behind it: one entry of the promotion log. Entries are only ever added."""
TIME = "%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True)
class Entry:
    """One entry of the promotion log.

    Attributes:
        time: when the decision was made, UTC.
        candidate: version that was looked at.
        champion: version that was champion afterwards, None if there was none.
        promoted: whether the decision moved the alias.
        reasons: why not, in sentences.
    """

    time: datetime
    candidate: str
    champion: str | None
    promoted: bool
    reasons: tuple[str, ...]


def register(
    models: Path,
    evaluations: Path,
    *,
    uri: str,
    experiment: str,
    registered_name: str,
    policy: Policy,
    include: Sequence[str] = (),
    ensemble: Path | None = None,
    transfer: Path | None = None,
) -> Registration:
    """Register the models of a run, give the aliases, and add to the promotion log.

    A model that is registered already isn't registered again. Aliases that a person has set are left alone.

    Args:
        models: folder with one folder per trained model.
        evaluations: folder with one folder per evaluation, named as the models.
        uri: address of the store.
        experiment: name of the experiment, for runs that the store doesn't know.
        registered_name: name of the registered model.
        policy: limits of the promotion rules.
        include: names of the models to take; empty takes all that are evaluated, and the ensemble.
        ensemble: folder of the ensemble; None, or a folder that is not there, if there is none.
        transfer: folder with ``models/`` and ``evaluations/`` of the transfer networks; None leaves them out.

    Returns:
        What was done.

    Raises:
        MissingInputError: if a wanted model is missing, or none is evaluated.
        RegistryError: if the store doesn't answer, or the models were judged on different splits.
    """
    if not uri:
        raise RegistryError(
            "expected the address of an MLflow store, received tracking uri=''; set tracking.tracking_uri"
        )
    wanted = candidates(models, evaluations, include, ensemble, transfer)
    connected = client(uri)
    _ensure_registered_model(connected, registered_name)
    facts: list[Facts] = []
    new: list[str] = []
    for one in wanted:
        run_id = log_evaluation(one.trained, one.evaluation, uri=uri, experiment=experiment)
        version, added = ensure_version(connected, uri, registered_name, one, str(run_id))
        facts.append(facts_of(version))
        if added:
            new.append(str(version.version))
    challenger = choose(facts)
    by_person = False
    decision = None
    if challenger is not None:
        by_person = not _give_alias(connected, registered_name, CHALLENGER, challenger.version)
        decision = _promote(connected, registered_name, challenger, policy)
    return Registration(
        registered_name,
        uri,
        tuple(sorted(facts, key=lambda one: -one.validation_auroc)),
        tuple(new),
        aliases(connected, registered_name).get(CHALLENGER),
        by_person,
        decision,
    )


def promotion_log(uri: str, registered_name: str) -> list[Entry]:
    """Read the promotion log.

    Args:
        uri: address of the store.
        registered_name: name of the registered model.

    Returns:
        All decisions, oldest first; the champion of a moment is that of the last entry before it.
    """
    entries = []
    for version in client(uri).search_model_versions(f"name = '{registered_name}'"):
        for key, text in version.tags.items():
            if key.startswith(LOG_ENTRY):
                when = datetime.strptime(key.removeprefix(LOG_ENTRY), TIME).replace(tzinfo=UTC)
                values = json.loads(text)
                champion, promoted = values["champion"], values["promoted"]
                entries.append(Entry(when, str(version.version), champion, promoted, tuple(values["reasons"])))
    return sorted(entries, key=lambda entry: entry.time)


def aliases(connected: MlflowClient, registered_name: str) -> dict[str, str]:
    """Aliases of a registered model.

    Args:
        connected: client of the store.
        registered_name: name of the registered model.

    Returns:
        Alias to version.
    """
    found = connected.get_registered_model(registered_name).aliases
    return {str(alias): str(version) for alias, version in found.items()}


def _ensure_registered_model(connected: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        connected.create_registered_model(
            name,
            description="Pneumonia on chest radiographs: image in, probability, label and threshold out.",
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise RegistryError(f"cannot create the registered model {name!r}: {error}") from error


def _set_by_person(connected: MlflowClient, name: str, alias: str) -> bool:
    registered = connected.get_registered_model(name)
    current = aliases(connected, name).get(alias)
    return current is not None and current not in registered.tags.get(SET_BY_RUN + alias, "").split()


def _give_alias(connected: MlflowClient, name: str, alias: str, version: str) -> bool:
    """Give an alias to a version, unless a person has set it; says whether the version has it afterwards."""
    current = aliases(connected, name).get(alias)
    if current == version:
        return True
    pinned = current is not None and facts_of(connected.get_model_version(name, current)).pinned
    if pinned or _set_by_person(connected, name, alias):
        return False
    # Both versions are named until the alias has moved: a run killed in between is not taken for a person.
    connected.set_registered_model_tag(name, SET_BY_RUN + alias, f"{current or ''} {version}".strip())
    connected.set_registered_model_alias(name, alias, version)
    connected.set_registered_model_tag(name, SET_BY_RUN + alias, version)
    return True


def _promote(connected: MlflowClient, name: str, challenger: Facts, policy: Policy) -> Decision:
    current = aliases(connected, name).get(CHAMPION)
    champion = facts_of(connected.get_model_version(name, current)) if current else None
    decision = decide(challenger, champion, policy, chosen_by_person=_set_by_person(connected, name, CHAMPION))
    if decision.promote:
        _give_alias(connected, name, CHAMPION, challenger.version)
    if decision.recommended:
        connected.set_model_version_tag(name, challenger.version, RECOMMENDED, CHAMPION)
    elif RECOMMENDED in connected.get_model_version(name, challenger.version).tags:
        connected.delete_model_version_tag(name, challenger.version, RECOMMENDED)
    entry = {"champion": decision.champion, "promoted": decision.promote, "reasons": decision.reasons}
    moment = LOG_ENTRY + datetime.now(UTC).strftime(TIME)
    connected.set_model_version_tag(name, challenger.version, moment, json.dumps(entry))
    return decision
