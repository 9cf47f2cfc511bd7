"""Ensemble: pool the evaluated models with weights from validation, and judge the pool as any model is judged."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.base import Reads, Writes
from cxr.steps.evaluate import Evaluate
from cxr.steps.evaluation_fields import Judged

log = logging.getLogger(__name__)


class Ensemble(Judged):
    """Join the evaluated models: weights on their log odds from validation, figures and a comparison from test."""

    name: ClassVar[str] = "ensemble"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "evaluate", "ensemble")
    # The networks have answered already: what evaluate needs to run one is not needed here.
    passed_over: ClassVar[frozenset[str]] = frozenset(Evaluate.parameters()) - frozenset(Judged.parameters())

    models: Annotated[
        Path,
        Reads("Models", each="Model"),
        Field(description="Folder with one folder per trained model."),
    ] = Path("artifacts/models")
    evaluations: Annotated[
        Path,
        Reads("Evaluations", each="Evaluation"),
        Field(description="Folder with one folder per evaluation, named as the models."),
    ] = Path("artifacts/evaluations")
    transfer: Annotated[
        Path | None,
        Reads("Transfer", optional=True),
        Field(description="Folder with models/ and evaluations/ of the transfer networks; null leaves them out."),
    ] = None
    ensemble: Annotated[
        Path,
        Writes("Ensemble"),
        Field(description="model/ with all that prediction needs, evaluation/ as of any model, comparison.json."),
    ] = Path("artifacts/ensemble")

    members: Annotated[list[str], Field(description="Models to join; empty takes all that are evaluated.")] = Field(
        default=[]
    )

    def run(self) -> None:
        """Fit the weights, judge the pool, hold it against its best member, write all of it."""
        from cxr import tracking
        from cxr.evaluation.comparison import compare
        from cxr.evaluation.ensemble import NAME, read_members, write_model
        from cxr.evaluation.evaluate import evaluate
        from cxr.evaluation.files import write_evaluation
        from cxr.evaluation.mistakes import pictures, worst_mistakes
        from cxr.evaluation.shortcut_checks import HIDDEN_COLUMN, honesty
        from cxr.files import COMPARISON_FILE, write_json
        from cxr.lineage import provenance
        from cxr.models.metadata import EVALUATION_FOLDER, MODEL_FOLDER, model_folders
        from cxr.plots.evaluation import write_plots
        from cxr.plots.style import Caption

        tracking.ensure_reachable(self.store)
        folders = model_folders(self.models, self.evaluations, self.transfer)
        members = read_members(folders, self.members)
        weights = members.fit()
        found = evaluate(
            members.pooled(weights), rule=self.rule, target=self.target, resamples=self.resamples,
            seed=self.seed, bins=self.bins, sensitivities=self.sensitivities,
        )  # fmt: skip
        if HIDDEN_COLUMN in found.predictions.columns:
            found = found.with_entries(honesty=honesty(found.predictions, resamples=self.resamples, seed=self.seed))
        card = members.card(weights, provenance.origin(Path()))
        card = card.completed(found.temperature, found.point.threshold, found.point.sentence())
        model, evaluation = self.ensemble / MODEL_FOLDER, self.ensemble / EVALUATION_FOLDER
        write_model(model, card, folders)
        evaluation.mkdir()
        write_evaluation(evaluation, found)
        card.write(evaluation)
        best = members.best()
        comparison = compare(
            found.predictions, members.tables[best], (NAME, best), resamples=self.resamples, seed=self.seed
        )
        write_json(self.ensemble / COMPARISON_FILE, comparison.to_dict())
        sheet = worst_mistakes(found.predictions, found.point.threshold, self.mistakes)
        write_plots(
            evaluation / "plots", found, sheet, pictures(sheet["path"].tolist(), None, self.data), Caption.of(card)
        )
        tracking.send_evaluation(model, evaluation, uri=self.store, experiment=self.experiment)
        log.info("weights: %s", ", ".join(f"{name} {weight:.3f}" for name, weight in weights.items()))
        log.info(comparison.sentence())
