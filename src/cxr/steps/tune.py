"""Tune: search parameter values of a model by training it many times; only validation decides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, ValidationInfo, field_validator

from cxr.errors import ParameterError
from cxr.freed_memory import keep_freed_memory
from cxr.steps.base import Output, WorkingFolder
from cxr.steps.folder_fields import ManifestFolder, RecipeFolders, SplitFolder
from cxr.steps.tracking_fields import TrackingStep
from cxr.steps.train import Train
from cxr.steps.training_fields import WITHOUT_EFFECT

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.trial import FrozenTrial

    from cxr.images.prepared import PreparedImages
    from cxr.training.split_data import SplitData
    from cxr.tuning.space import Scalar, Space

FIXED = WITHOUT_EFFECT | {
    "model", "system", "architecture", "augmentation", "monitor", "seed", "epochs", "phantom_epochs",
    "phantom_train_images", "fine_tune_epochs", "mirrored", "devices",
}  # fmt: skip
"""Parameters of a training that all trials share: they would make trials incomparable, have no single value, or take
effect only after training."""


class Tune(TrackingStep):
    """Search better parameter values for one model on validation. A killed search resumes with its next trial."""

    name: ClassVar[str] = "tune"
    follows: ClassVar[str] = "graph"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "tune")
    collected_sections: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "base": ("train", "models.{model}", "transfer.{model}")
    }

    model: Annotated[
        str,
        Field(pattern=r"^[a-z][a-z0-9_]*$", description="Name of the model: its entry in models or transfer."),
    ]
    manifest: ManifestFolder = Path("artifacts/manifest")
    splits: SplitFolder = Path("artifacts/splits")
    prepared: RecipeFolders = Path("artifacts/prepared")
    found: Annotated[
        Path, Output("Search"), Field(description="Folder of the outcome: best values, trials, plots.")
    ] = Path("artifacts/searches/{model}")
    study: Annotated[
        Path, WorkingFolder("Study"), Field(description="Folder of the study, which later searches continue.")
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
        int, Field(ge=1, le=10_000, description="Number of trials, those of earlier runs of this search included.")
    ] = 30
    epochs: Annotated[
        int | None,
        Field(ge=1, le=10_000, description="Maximum of epochs per trial, in each phase; null takes the model's own."),
    ] = None
    monitor: Annotated[
        Literal["loss", "auroc", "stressed_loss", "stressed_auroc"] | None,
        Field(description="Validation metric that ranks the trials; null takes the model's own."),
    ] = None
    sampler: Annotated[
        Literal["tpe", "random"],
        Field(description="How values are proposed: learning from the trials so far (tpe), or at random."),
    ] = "tpe"
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Seed of the proposals; trainings keep theirs.")] = 0
    startup_trials: Annotated[
        int, Field(ge=1, description="Random trials, none of them ended early, before the search learns from them.")
    ] = 8
    pruner: Annotated[
        Literal["median", "none"],
        Field(description="median: end trials whose best metric is behind the median of the others at that epoch."),
    ] = "median"
    warmup_epochs: Annotated[int, Field(ge=0, description="Epochs that every trial may run.")] = 4
    timeout_minutes: Annotated[
        float | None, Field(gt=0, description="Minutes after which no further trial begins; null sets no limit.")
    ] = None
    resume: Annotated[bool, Field(description="Continue with the existing trials; false removes them first.")] = True

    @field_validator("found", "study")
    @classmethod
    def _of_the_model(cls, value: Path, info: ValidationInfo) -> Path:
        return Path(str(value).replace("{model}", str(info.data.get("model"))))

    @classmethod
    def build(cls, values: Mapping[str, Any]) -> Self:
        """Build the step; the model's own values and the space are also checked, against the bounds of Train.

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
            checkable = {name: values[name] for name in ("model", "base", "space", "model_space") if name in values}
            try:
                built = super().build(checkable)
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
        from cxr.tuning.space import combination_problems_in, network_problems

        if "architecture" not in self.base:
            return [
                f"expected model to be an entry of the sections models or transfer, received model={self.model}; "
                "give --params params.yaml, and add an entry or correct the name"
            ]
        space, problems = self._space()
        if not self._space_entries():
            problems.append("expected at least one parameter to search, received space={}")
        try:
            base = self._training({})
        except ParameterError as error:
            return [*error.problems, *problems]
        problems.extend(network_problems(space, base.model_dump()))
        problems.extend(combination_problems_in(space, base.model_dump()))
        if base.recipe is None and "recipe" not in space:
            problems.append(f"expected recipe of {self.model} to name a recipe, received recipe=None")
        return [f"{self.name}: {problem}" for problem in problems]

    def run(self) -> None:
        """Run trials until the planned number is reached, then write the outcome."""
        from cxr.lineage import provenance
        from cxr.tracking.active_run import close_trial, open_run

        keep_freed_memory()
        self.check_store()
        from cxr.models.backend import load_keras

        load_keras()
        from cxr.images.prepared import PreparedImages
        from cxr.plots.search import plot_parameter_slices, plot_search_history
        from cxr.plots.style import Caption, save_png
        from cxr.training.checkpoint import read_attempt
        from cxr.training.device import describe_device
        from cxr.training.split_data import SplitData
        from cxr.tuning.report import write_search
        from cxr.tuning.search import SearchPlan, search
        from cxr.tuning.space import space_parameters, start_values, values_to_check
        from cxr.tuning.study import best_trial, ended_trials, monitored_value, open_study, search_digest, trial_state
        from cxr.tuning.trials import HISTORY, check_networks

        base, space, data = self._training({}), self._space()[0], SplitData.read(self.manifest, self.splits)
        prepared = {
            str(recipe): PreparedImages.open(self.prepared / str(recipe), str(recipe))
            for recipe in values_to_check(space, "recipe", base.recipe)
        }
        check_networks(base.settings(), space, list(prepared.values()))
        fixed_values = base.model_dump(include=set(base.parameters()) - WITHOUT_EFFECT - set(space), mode="json")
        recipes = [images.recipe.to_dict() for images in prepared.values()]
        digest = search_digest(data.data_digest, data.digest, fixed_values, space_parameters(space), recipes)
        plan = SearchPlan(
            self.trials, self.seed, self.sampler, self.startup_trials, self.pruner, self.warmup_epochs,
            None if self.timeout_minutes is None else 60 * self.timeout_minutes,
        )  # fmt: skip
        device, metric = describe_device(), f"best_val_{base.monitor}"
        with (
            open_study(self.study, digest, monitor=base.monitor, resume=self.resume) as study,
            open_run(
                self.store, self.experiment, f"{self.model} search",
                tags={"model": self.model, "system": base.system, "search": digest, "data_digest": data.data_digest,
                      "split_protocol": data.protocol, "split_digest": data.digest,
                      "git_commit": provenance.git_commit(Path())},
                params=space_parameters(space) | {"monitor": base.monitor},
                dataset_kind=data.dataset.kind, run_id=study.user_attrs.get("run_id"), attempt=read_attempt(self.study),
            ) as run,
        ):  # fmt: skip
            study.set_user_attr("run_id", run.run_id)

            def train(trial: Trial, values: dict[str, Scalar]) -> float:
                study.set_user_attr("device", device)
                return self._run_trial(trial, values, prepared, data, run.run_id)

            def close_run(trial: FrozenTrial) -> None:
                run_id, history = trial.user_attrs.get("run_id"), trial.user_attrs.get(HISTORY, ())
                metrics = {metric: monitored_value(study, trial)}
                close_trial(self.store, run_id, trial_state(trial), metrics, history)

            def log_trial(trial: FrozenTrial) -> None:
                close_run(trial)
                best = best_trial(study)
                if best is not None:
                    run.log_epoch(trial.number, {metric: monitored_value(study, best)})

            for trial in ended_trials(study):  # killed ones, and those that ended while the store was unreachable
                close_run(trial)
            start = start_values(space, base.model_dump())
            search(study, space, plan, train, start=start, on_trial=log_trial)
            trials = write_search(self.found, study, space, base.model_dump(mode="json"), data, self.trials)
            is_phantom = data.dataset.kind == "phantom"
            caption = Caption(self.model, data.dataset.name, f"{data.protocol} split", is_phantom)
            save_png(plot_search_history(trials, base.monitor, caption), self.found / "history.png")
            save_png(plot_parameter_slices(trials, space, base.monitor, caption), self.found / "parameters.png")
            run.log_folder(self.found, "search")

    def _space_entries(self) -> dict[str, Any]:
        """The entries of the space for this model; a further entry of a network is searched like the network."""
        network_space = self.model_space.get(str(self.base.get("architecture")), {})
        merged = {**self.space, **self.model_space.get(self.model, network_space)}
        return {name: entry for name, entry in merged.items() if entry is not None}

    def _space(self) -> tuple[Space, list[str]]:
        from cxr.tuning.space import read_space, searchable_fields

        fields = searchable_fields(Train.model_fields, FIXED | set(Train.artifacts()))
        return read_space(self._space_entries(), fields)

    def _training(self, values: Mapping[str, Any]) -> Train:
        """The training that a trial runs, with values in place of the model's own."""
        fields = {**self.base, **values, "model": self.model, "trained": self.found, "prepared": self.prepared}
        if self.monitor is not None:
            fields["monitor"] = self.monitor
        step = Train.build(fields)
        if self.epochs is None:
            return step
        return step.model_copy(
            update={
                "epochs": min(step.epochs, self.epochs),
                "fine_tune_epochs": min(step.fine_tune_epochs, self.epochs),
            }
        )

    def _run_trial(
        self, trial: Trial, values: dict[str, Scalar], prepared: Mapping[str, PreparedImages], data: SplitData,
        parent: str | None,
    ) -> float:  # fmt: skip
        """Train with the values of one trial, in a run of its own below the run of the search."""
        from cxr.tracking.active_run import open_run
        from cxr.training.checkpoint import read_attempt
        from cxr.tuning.trials import run_trial

        step = self._training(values)
        with open_run(
            self.store, self.experiment, f"{self.model} trial {trial.number}",
            tags={"model": self.model, "system": step.system, "trial": trial.number},
            params=step.training_parameters(), dataset_kind=data.dataset.kind, parent=parent,
            attempt=f"{read_attempt(self.study)} trial",  # the study's lock lets one trial run at a time
        ) as run:  # fmt: skip
            trial.set_user_attr("run_id", run.run_id)
            return run_trial(
                trial, step.settings(), prepared[str(step.recipe)], data, self.study / "trial",
                lambda row: run.log_epoch(int(row["epoch"]), row),
            )  # fmt: skip
