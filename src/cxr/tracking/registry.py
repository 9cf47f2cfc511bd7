"""The model registry: versions that run on their own, and who of them is challenger and champion."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import RegistryError
from cxr.promotion.log import CHALLENGER, CHAMPION, Entry
from cxr.promotion.registration import Registration, comparison_figures
from cxr.promotion.rules import Decision, Facts, Policy, choose, comparable, decide
from cxr.tracking.aliases import ATTEMPTS, Aliases, Standing
from cxr.tracking.artifacts import absent_files
from cxr.tracking.comparison import FrozenImages, Opponents, oppose
from cxr.tracking.connection import client
from cxr.tracking.runs import log_evaluation
from cxr.tracking.version_facts import facts_of
from cxr.tracking.versions import candidates, ensure_version

if TYPE_CHECKING:
    import pandas as pd
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

RECOMMENDED = "recommended"
DECISION = "decision"
"""Tags of a version: what it would be if no person had chosen otherwise, and where the decision about it lies."""


@dataclass(frozen=True)
class Run:
    """Where the models of a run lie.

    Attributes:
        models: folder with one folder per trained model.
        evaluations: folder with one folder per evaluation, named as the models.
        splits: folder of the split that they were judged on.
        data: folder of the raw images, for a champion that has to be asked about new ones; None if not at hand.
        ensemble: folder of the ensemble; None, or a folder that is not there, if there is none.
        transfer: folder with ``models/`` and ``evaluations/`` of the transfer networks; None leaves them out.
        include: names of the models to take; empty takes all that are evaluated, and the ensemble.
        reference: folder of the reference that versions carry; None, or a folder without one, if there is none.
    """

    models: Path
    evaluations: Path
    splits: Path
    data: Path | None = None
    ensemble: Path | None = None
    transfer: Path | None = None
    include: Sequence[str] = field(default=())
    reference: Path | None = None


def register(
    run: Run, *, uri: str, experiment: str, registered_name: str, policy: Policy
) -> tuple[Registration, pd.DataFrame | None]:
    """Register the models of a run, give the aliases, and add to the promotion log.

    A model that is registered already isn't registered again. Aliases that a person has set are left alone.

    Args:
        run: where the models lie.
        uri: address of the store.
        experiment: name of the experiment, for runs that the store doesn't know.
        registered_name: name of the registered model.
        policy: limits of the promotion rules.

    Returns:
        What was done, and the images that challenger (``ours``) and champion (``theirs``) were compared on, None
        without a comparison.

    Raises:
        MissingInputError: if a wanted model is missing, or none is evaluated.
        DataError: if ``run.splits`` is not what the models were judged on.
        RegistryError: if the store doesn't answer, or the models were judged on different splits.
    """
    if not uri:
        raise RegistryError(
            "expected the address of an MLflow store, received tracking uri=''; set tracking.tracking_uri"
        )
    wanted = candidates(run.models, run.evaluations, run.include, run.ensemble, run.transfer, run.reference)
    connected = client(uri)
    _ensure_registered_model(connected, registered_name)
    aliases = Aliases(uri, registered_name, connected)
    frozen = FrozenImages(connected, aliases.log.run_id)
    facts: list[Facts] = []
    new: list[str] = []
    for one in wanted:
        run_id = log_evaluation(one.trained, one.evaluation, uri=uri, experiment=experiment)
        version, added = ensure_version(connected, uri, registered_name, one, str(run_id))
        frozen.keep(str(version.version), one, run.splits)
        facts.append(replace(facts_of(version), absent=absent_files(uri, version)))
        if added:
            new.append(str(version.version))
    promotion = _Promotion(connected, uri, registered_name, aliases, frozen, policy, run.data)
    decision, entry, opponents = promotion.decide(choose(facts))
    standing = aliases.settle()
    outcome = Registration(
        registered_name,
        uri,
        tuple(sorted(facts, key=lambda one: -one.validation_auroc)),
        tuple(new),
        standing.places,
        standing.held,
        decision,
        opponents.match if opponents else None,
        policy,
        entry.number if entry else None,
        promotion.notes(standing),
    )
    return outcome, opponents.rows if opponents else None


def keep_decision(uri: str, outcome: Registration, folder: Path) -> None:
    """Keep the files of a decision in the store, and tell the version where they are.

    Args:
        uri: address of the store.
        outcome: what the run did.
        folder: folder whose files are copied.
    """
    if outcome.entry is None or outcome.decision is None:
        return
    connected = client(uri)
    aliases = Aliases(uri, outcome.registered_name, connected)
    where = aliases.log.keep(folder, outcome.entry)
    place = f"runs:/{aliases.log.run_id}/{where}"
    connected.set_model_version_tag(outcome.registered_name, outcome.decision.candidate, DECISION, place)


def promotion_log(uri: str, registered_name: str) -> list[Entry]:
    """Read the promotion log, once it also tells what persons have changed since.

    Args:
        uri: address of the store.
        registered_name: name of the registered model.

    Returns:
        All entries, oldest first.

    Raises:
        RegistryError: if the store doesn't answer or doesn't know the model.
    """
    aliases = Aliases(uri, registered_name)
    aliases.settle()
    return aliases.log.entries()


def observe(uri: str, registered_name: str) -> Standing:
    """Note in the promotion log what a person has changed; called when aliases are seen to change.

    Args:
        uri: address of the store.
        registered_name: name of the registered model.

    Returns:
        Where the aliases are.
    """
    return Aliases(uri, registered_name).settle()


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


class _Promotion:
    """One run's way from its challenger to the entry in the log, again if another run was faster."""

    def __init__(
        self,
        connected: MlflowClient,
        uri: str,
        name: str,
        aliases: Aliases,
        frozen: FrozenImages,
        policy: Policy,
        data: Path | None,
    ) -> None:
        self._client, self._uri, self._name = connected, uri, name
        self._aliases, self._frozen, self._policy, self._data = aliases, frozen, policy, data
        self._known: dict[str, Opponents] = {}

    def decide(self, challenger: Facts | None) -> tuple[Decision | None, Entry | None, Opponents | None]:
        """Decide on what log and registry say, and write it down before anyone else writes."""
        if challenger is None:
            return None, None, None
        for _ in range(ATTEMPTS):
            standing = self._aliases.settle()
            champion = self._facts(standing.champion)
            opponents = self._opponents(challenger, champion)
            decision = decide(
                challenger,
                champion,
                self._policy,
                match=opponents.match if opponents else None,
                chosen_by_person=CHAMPION in standing.held,
            )
            places = self._places(standing, challenger, decision)
            if self._is_repeated(standing, challenger, decision, places):
                return decision, None, opponents
            entry = self._aliases.move(
                standing,
                "run",
                places,
                candidate=challenger.version,
                reasons=decision.reasons,
                figures=comparison_figures(opponents.match if opponents else None),
            )
            if entry is not None:
                self._recommend(decision)
                return decision, entry, opponents
        raise RegistryError(
            f"expected a quiet promotion log of {self._name}, received {ATTEMPTS} entries by others meanwhile; "
            "register again"
        )

    def notes(self, standing: Standing) -> tuple[str, ...]:
        """What a reader should know about the champion."""
        champion = self._facts(standing.champion)
        if champion is None or not champion.absent:
            return ()
        note = (
            f"Champion version {champion.version} has lost {', '.join(champion.absent)}: it cannot answer and is not "
            "served. Restore its files, or run `cxr rollback`."
        )
        log.warning(note)
        return (note,)

    def _facts(self, version: str | None) -> Facts | None:
        if version is None:
            return None
        found = self._client.get_model_version(self._name, version)
        return replace(facts_of(found), absent=absent_files(self._uri, found))

    def _opponents(self, challenger: Facts, champion: Facts | None) -> Opponents | None:
        if champion is None or not comparable(challenger, champion):
            return None
        if champion.version not in self._known:
            version = self._client.get_model_version(self._name, champion.version)
            self._known[champion.version] = oppose(
                self._frozen, self._uri, challenger, champion, version, self._policy, self._data
            )
        return self._known[champion.version]

    def _places(self, standing: Standing, challenger: Facts, decision: Decision) -> dict[str, str | None]:
        """Aliases after the decision."""
        places = {**standing.places, CHAMPION: decision.champion}
        if self._may_move(standing, CHALLENGER):
            places[CHALLENGER] = challenger.version
        return places

    def _is_repeated(
        self, standing: Standing, challenger: Facts, decision: Decision, places: dict[str, str | None]
    ) -> bool:
        """Whether the log says this already: the same run once more adds nothing to it."""
        last = standing.last
        again = (last.kind, last.candidate) == ("run", challenger.version) and dict(last.after) == places
        return again and (not decision.rules or last.reasons == decision.reasons)

    def _may_move(self, standing: Standing, alias: str) -> bool:
        if alias in standing.held:
            return False
        current = standing.places[alias]
        return current is None or not facts_of(self._client.get_model_version(self._name, current)).pinned

    def _recommend(self, decision: Decision) -> None:
        """Tag the version that only a person's choice holds back; what is champion needs no recommendation."""
        for version in {decision.candidate, decision.champion} - {None}:
            wanted = decision.recommended and version == decision.candidate
            has = RECOMMENDED in self._client.get_model_version(self._name, version).tags
            if wanted and not has:
                self._client.set_model_version_tag(self._name, version, RECOMMENDED, CHAMPION)
            elif has and not wanted:
                self._client.delete_model_version_tag(self._name, version, RECOMMENDED)
