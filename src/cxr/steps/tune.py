"""Tune: search values of a model's parameters by training it again and again, judged on validation alone."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import Field, ValidationInfo, field_validator

from cxr.errors import ParameterError, TrainingError
from cxr.models.networks import PRETRAINED
from cxr.steps.base import Keeps, Reads, Writes
from cxr.steps.tracking_fields import Tracked
from cxr.steps.train import WITHOUT_EFFECT, Train

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import FrozenTrial

    from cxr.images.prepared import Prepared
    from cxr.training.training_set import SplitData
    from cxr.tuning.space import Scalar, Space

log = logging.getLogger(__name__)

HISTORY = "history"
"""Attribute of a trial: its rows of figures, which a store that is away gets later."""
FIXED = WITHOUT_EFFECT | {
    "model", "system", "architecture", "augmentation", "monitor", "seed", "epochs", "phantom_epochs", "fine_tune_epochs"
}  # fmt: skip
"""Parameters of a training that trials share: others would not be comparable, or have no values in one line."""


class Tune(Tracked):
    """Search better values for one model on validation; a killed search goes on where it was."""

    name: ClassVar[str] = "tune"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "tune")
    collects: ClassVar[Mapping[str, tuple[str, ...]]] = {"base": ("train", "models.{model}", "transfer.{model}")}

    model: Annotated[
        str,
        Field(pattern=r"^[a-z][a-z0-9_]*$", description="Name of the model: its entry in models or transfer."),
    ]
    manifest: Annotated[Path, Reads("Manifest"), Field(description="Folder of the manifest.")] = Path(
        "artifacts/manifest"
    )
    splits: Annotated[Path, Reads("Splits"), Field(description="Folder of the split.")] = Path("artifacts/splits")
    prepared: Annotated[
        Path, Reads("Prepared"), Field(description="Folder with one folder of prepared images per recipe.")
    ] = Path("artifacts/prepared")
    found: Annotated[
        Path, Writes("Search"), Field(description="Folder of what was found: best values, trials, plots.")
    ] = Path("artifacts/searches/{model}")
    study: Annotated[
        Path, Keeps("Study"), Field(description="Folder of the study, which later searches go on with.")
    ] = Path("artifacts/tuning/{model}")

    base: Annotated[
        dict[str, Any],
        Field(description="Values of what is not searched: those of cxr train (section train, and its entry)."),
    ] = Field(default_factory=dict)
    space: Annotated[
        dict[str, Any],
        Field(description="What is searched: parameter of cxr train to a list of choices, or to low, high, log, step."),
    ] = Field(default_factory=dict)
    model_space: Annotated[
        dict[str, dict[str, Any]],
        Field(description="Entries of space for single models, which beat it; null leaves a parameter out."),
    ] = Field(default_factory=dict)
    trials: Annotated[
        int, Field(ge=1, le=10_000, description="Trials in all, those of earlier runs of this search included.")
    ] = 30
    epochs: Annotated[
        int | None,
        Field(ge=1, le=10_000, description="Most epochs a trial, in each phase; null takes the model's own."),
    ] = None
    monitor: Annotated[
        Literal["auroc", "loss"] | None,
        Field(description="Validation figure that trials are judged by; null takes the model's own."),
    ] = None
    sampler: Annotated[
        Literal["tpe", "random"],
        Field(description="How values are proposed: learning from the trials so far (tpe), or at random."),
    ] = "tpe"
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Seed of the proposals; trainings keep theirs.")] = 0
    startup_trials: Annotated[
        int, Field(ge=1, description="Trials at random, none of them ended early, before the search learns from them.")
    ] = 8
    pruner: Annotated[
        Literal["median", "none"],
        Field(description="median: end trials whose best figure is behind the median of the others at that epoch."),
    ] = "median"
    warmup_epochs: Annotated[int, Field(ge=0, description="Epochs that every trial may run.")] = 4
    timeout_minutes: Annotated[
        float | None, Field(gt=0, description="Minutes after which no further trial begins; null sets no limit.")
    ] = None
    resume: Annotated[bool, Field(description="Go on with the trials that there are; false removes them first.")] = True

    @field_validator("found", "study")
    @classmethod
    def _of_the_model(cls, value: Path, info: ValidationInfo) -> Path:
        return Path(str(value).replace("{model}", str(info.data.get("model"))))

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Self:
        """Make the step; the model's own values and the space are checked too, against the bounds of Train.

        Args:
            values: field to value.

        Returns:
            The step.

        Raises:
            ParameterError: listing all unknown, missing and wrong values.
        """
        problems: list[str] = []
        try:
            built = super().build(values)
        except ParameterError as error:
            problems.extend(error.problems)
            readable = {name: values[name] for name in ("model", "base", "space", "model_space") if name in values}
            try:
                built = super().build(readable)
            except ParameterError:
                raise error from None
        problems.extend(built.problems())
        if problems:
            raise ParameterError(problems)
        return built

    def problems(self) -> list[str]:
        """Find what is wrong with the model's own values and with the space.

        Returns:
            One sentence per problem.
        """
        from cxr.tuning.space import network_problems

        if "architecture" not in self.base:
            return [
                f"expected model to be an entry of the sections models or transfer, received model={self.model}; "
                "give --params params.yaml, and add an entry or correct the name"
            ]
        space, problems = self._space()
        if not self._given():
            problems.append("expected at least one parameter to search, received space={}")
        try:
            base = self._train({})
        except ParameterError as error:
            return [*error.problems, *problems]
        problems.extend(network_problems(space, base.model_dump()))
        if base.recipe is None and "recipe" not in space:
            problems.append(f"expected recipe of {self.model} to name a recipe, received recipe=None")
        return [f"{self.name}: {problem}" for problem in problems]

    def run(self) -> None:
        """Try values until there are as many trials as wanted, then write what was found."""
        from cxr import tracking
        from cxr.lineage import provenance

        tracking.ensure_reachable(self.store)
        from cxr.models.backend import load_keras

        load_keras()
        from cxr.images.prepared import Prepared
        from cxr.training.device import evidence
        from cxr.training.training_set import SplitData
        from cxr.tuning.search import Plan, search
        from cxr.tuning.study import best_of, digest_of, ended, figure_of, open_study, state_of
        from cxr.tuning.trials import check_networks

        base, space, data = self._train({}), self._space()[0], SplitData.read(self.manifest, self.splits)
        recipes = space["recipe"].ends() if "recipe" in space else (base.recipe,)
        prepared = {str(recipe): Prepared.open(self.prepared / str(recipe), str(recipe)) for recipe in recipes}
        check_networks(base.settings(), space, list(prepared.values()))
        values = base.model_dump(include=set(base.parameters()) - WITHOUT_EFFECT - set(space), mode="json")
        digest = digest_of(
            data.data_digest, data.digest, values, {name: one.plain() for name, one in space.items()},
            [one.recipe.to_dict() for one in prepared.values()],
        )  # fmt: skip
        plan = Plan(
            self.trials, self.seed, self.sampler, self.startup_trials, self.pruner, self.warmup_epochs,
            None if self.timeout_minutes is None else 60 * self.timeout_minutes,
        )  # fmt: skip
        start = {name: getattr(base, name) for name, one in space.items() if one.holds(getattr(base, name))}
        device, figure = evidence(), f"best_val_{base.monitor}"
        with (
            open_study(self.study, digest, monitor=base.monitor, resume=self.resume) as study,
            tracking.open_run(
                self.store, self.experiment, f"{self.model} search",
                tags={"model": self.model, "system": base.system, "search": digest, "data_digest": data.data_digest,
                      "split_protocol": data.protocol, "split_digest": data.digest,
                      "git_commit": provenance.git_commit(Path())},
                params={name: one.plain() for name, one in space.items()} | {"monitor": base.monitor},
                dataset_kind=data.dataset.kind, run_id=study.user_attrs.get("run_id"),
            ) as run,
        ):  # fmt: skip
            study.set_user_attr("run_id", run.run_id)

            def train(trial: Trial, values: dict[str, Scalar]) -> float:
                study.set_user_attr("device", device)
                return self._try(trial, values, prepared, data, run.run_id)

            def close(trial: FrozenTrial) -> None:
                own, figures = trial.user_attrs.get("run_id"), {figure: figure_of(study, trial)}
                history = trial.user_attrs.get(HISTORY, ())
                tracking.close_trial(self.store, own, state_of(trial), figures, history)

            def show(trial: FrozenTrial) -> None:
                close(trial)
                best = best_of(study)
                if best is not None:
                    run.log_epoch(trial.number, {figure: figure_of(study, best)})

            for earlier in ended(study):  # killed ones, and those that ended while the store was away
                close(earlier)
            search(study, space, plan, train, start=start, on_trial=show)
            self._write(study, space, base, data)
            run.log_folder(self.found, "search")

    def _given(self) -> dict[str, Any]:
        """The space as it is written for this model."""
        merged = {**self.space, **self.model_space.get(self.model, {})}
        return {name: entry for name, entry in merged.items() if entry is not None}

    def _space(self) -> tuple[Space, list[str]]:
        from cxr.tuning.space import read_space, searchable

        return read_space(self._given(), searchable(Train.model_fields, FIXED | set(Train.artifacts())))

    def _train(self, values: Mapping[str, Any]) -> Train:
        """The training that a trial runs, with values in place of the model's own."""
        given = {**self.base, **values, "model": self.model, "trained": self.found, "prepared": self.prepared}
        if self.monitor is not None:
            given["monitor"] = self.monitor
        step = Train.build(given)
        if self.epochs is None:
            return step
        return step.model_copy(
            update={
                "epochs": min(step.epochs, self.epochs),
                "fine_tune_epochs": min(step.fine_tune_epochs, self.epochs),
            }
        )

    def _try(
        self, trial: Trial, values: dict[str, Scalar], prepared: Mapping[str, Prepared], data: SplitData,
        parent: str | None,
    ) -> float:  # fmt: skip
        """Train with the values of one trial, in a run of its own below the search's."""
        from cxr import tracking
        from cxr.tuning.search import reporter
        from cxr.tuning.trials import train_trial

        step = self._train(values)
        report = reporter(trial, step.monitor)
        with tracking.open_run(
            self.store, self.experiment, f"{self.model} trial {trial.number}",
            tags={"model": self.model, "system": step.system, "trial": trial.number},
            params=step.model_dump(include=set(step.parameters()) - WITHOUT_EFFECT, mode="json"),
            dataset_kind=data.dataset.kind, parent=parent,
        ) as run:  # fmt: skip
            trial.set_user_attr("run_id", run.run_id)

            rows: list[dict[str, float]] = []

            def on_epoch(row: dict[str, float]) -> None:
                rows.append(row)
                run.log_epoch(int(row["epoch"]), row)
                report(row)

            folder = self.study / "trial"
            try:
                return train_trial(step.settings(), prepared[str(step.recipe)], data, folder, on_epoch).best
            finally:
                trial.set_user_attr(HISTORY, rows)

    def _write(self, study: Study, space: Space, base: Train, data: SplitData) -> None:
        """Write best values, table, facts and plots, and say how to take the values over."""
        from cxr.plots.search import history, slices
        from cxr.plots.style import Caption, save
        from cxr.tuning.report import changed, command, facts, table

        found = facts(study, self.trials)
        trials = table(study, space)
        trials.to_csv(self.found / "trials.csv", index=False)
        if found["best"] is None:
            errors = "; ".join(dict.fromkeys(trials["error"].iloc[-3:]))
            raise TrainingError(
                f"expected a trial that was trained to its end, received {found['trials']}: {errors}; "
                "change space or base values"
            )
        origin = {
            "model": self.model,
            "monitor": base.monitor,
            "dataset": {"name": data.dataset.name, "kind": data.dataset.kind},
            "data_digest": data.data_digest,
            "split_protocol": data.protocol,
            "split_digest": data.digest,
            "device": study.user_attrs["device"],
            "study": study.study_name,
        }
        (self.found / "search.json").write_text(json.dumps({**found, **origin}, indent=2) + "\n", encoding="utf-8")
        better = changed(study, base.model_dump(mode="json"))
        section = "transfer" if self.base["architecture"] in PRETRAINED else "models"
        patch = yaml.safe_dump({section: {self.model: better}}, sort_keys=False)
        (self.found / "best.yaml").write_text(patch, encoding="utf-8")
        phantom = data.dataset.kind == "phantom"
        caption = Caption(self.model, data.dataset.name, f"{data.protocol} split", phantom)
        save(history(trials, base.monitor, caption), self.found / "history.png")
        save(slices(trials, space, base.monitor, caption), self.found / "parameters.png")
        best = found["best"]
        log.info("best: validation %s %.4f in trial %d", base.monitor, best["value"], best["trial"])
        if not better:
            log.info("the values of params.yaml are the best that were tried")
            return
        log.info("values to take over into params.yaml:\n%s", patch.rstrip())
        log.info("or let DVC write them there and run what depends on them:\n%s", command(self.model, better, section))
