"""Ensemble: pool the evaluated models with weights from validation, and evaluate the ensemble as any model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.base import TRAIN_IMAGE, Output
from cxr.steps.evaluate import Evaluate
from cxr.steps.evaluation_fields import EvaluationStep
from cxr.steps.folder_fields import EvaluationFolders, ModelFolders, TransferFolder

log = logging.getLogger(__name__)


class Ensemble(EvaluationStep):
    """Pool the evaluated models: weights of their log odds from validation, metrics and a comparison from test."""

    name: ClassVar[str] = "ensemble"
    follows: ClassVar[str] = "evaluate"
    sections: ClassVar[tuple[str, ...]] = ("tracking", "evaluate", "ensemble")
    # The members' predictions exist already, so the parameters for running a network have no use here.
    ignored_keys: ClassVar[frozenset[str]] = frozenset(Evaluate.parameters()) - frozenset(EvaluationStep.parameters())
    container_image: ClassVar[str | None] = TRAIN_IMAGE
    reads_images: ClassVar[bool] = True

    models: ModelFolders = Path("artifacts/models")
    evaluations: EvaluationFolders = Path("artifacts/evaluations")
    transfer: TransferFolder = None
    ensemble: Annotated[
        Path,
        Output("Ensemble"),
        Field(description="model/ with all that prediction needs, evaluation/ as of any model, comparison.json."),
    ] = Path("artifacts/ensemble")

    members: Annotated[list[str], Field(description="Models to pool; empty takes all evaluated ones.")] = Field(
        default=[]
    )

    def run(self) -> None:
        """Fit the weights, evaluate the ensemble, compare it with its best member, write everything."""
        from cxr.data.image_opening import open_raw_images
        from cxr.evaluation.bootstrap import CONFIDENCE
        from cxr.evaluation.comparison import compare_models
        from cxr.evaluation.ensemble import ENSEMBLE_NAME, read_members, write_ensemble
        from cxr.evaluation.evaluate import evaluate
        from cxr.evaluation.shortcut_checks import with_shortcut_checks
        from cxr.evaluation.stress_test import with_stress_test
        from cxr.files import COMPARISON_FILE, write_json
        from cxr.lineage import provenance
        from cxr.models.metadata import EVALUATION_FOLDER, MODEL_FOLDER, model_folders
        from cxr.plots.evaluation import write_evaluation_folder
        from cxr.tracking.finished_run import try_to_log_evaluation

        self.check_store()
        folders = model_folders(self.models, self.evaluations, self.transfer)
        members = read_members(folders, self.members)
        weights = members.fit_weights()
        evaluation = evaluate(members.pooled_predictions(weights), self.settings())
        evaluation = with_shortcut_checks(evaluation, resamples=self.resamples, seed=self.seed)
        changed = members.pooled_changed_predictions(weights)
        evaluation = with_stress_test(evaluation, changed, resamples=self.resamples, seed=self.seed)
        metadata = members.ensemble_metadata(weights, provenance.current_provenance(Path()))
        model_folder, evaluation_folder = self.ensemble / MODEL_FOLDER, self.ensemble / EVALUATION_FOLDER
        write_ensemble(model_folder, evaluation.calibrate(metadata), folders)
        best = members.best_member()
        comparison = compare_models(
            evaluation.predictions, members.predictions[best], (ENSEMBLE_NAME, best),
            confidence=CONFIDENCE, resamples=self.resamples, seed=self.seed,
        )  # fmt: skip
        write_json(self.ensemble / COMPARISON_FILE, comparison.to_dict())
        images = open_raw_images(self.data)
        write_evaluation_folder(
            evaluation_folder, evaluation, metadata, prepared=None, raw=images, mistakes=self.mistakes
        )
        try_to_log_evaluation(self.store, model_folder, evaluation_folder, experiment=self.experiment)
        log.info("weights: %s", ", ".join(f"{name} {weight:.3f}" for name, weight in weights.items()))
        log.info(comparison.sentence())
