"""Adopt: take a model that was trained on another machine into the graph of this one."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from cxr.errors import DataError, MissingInputError, ParameterError
from cxr.files import NETWORK_FILE
from cxr.steps.base import Positional, Step
from cxr.steps.folder_fields import ManifestFolder, RecipeFolders, SplitFolder
from cxr.steps.preprocess import Preprocess
from cxr.steps.train import Train

if TYPE_CHECKING:
    from cxr.lineage.adoption import ExpectedTraining


class Adopt(Step):
    """Take a model that was trained on another machine, after checking that it stands for the training of this one."""

    name: ClassVar[str] = "adopt"
    follows: ClassVar[str] = "train"
    sections: ClassVar[tuple[str, ...]] = ()
    collected_sections: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "base": ("train",),
        "models": ("models",),
        "transfer_models": ("transfer",),
        "recipes": ("recipes", "transfer_recipes"),
    }

    manifest: ManifestFolder = Path("artifacts/manifest")
    splits: SplitFolder = Path("artifacts/splits")
    prepared: RecipeFolders = Path("artifacts/prepared")

    folder: Annotated[
        Path, Positional(), Field(description="Folder that `cxr train` wrote on the other machine, copied as a whole.")
    ]
    model: Annotated[
        str | None,
        Field(
            description="Entry of params.yaml that it stands for, if that has another name, e.g. for a further seed; "
            "null: the name in its files."
        ),
    ] = None
    trained: Annotated[
        Path | None,
        Field(description="Folder to write; null: artifacts/models/NAME, or artifacts/transfer/models/NAME."),
    ] = None
    replace: Annotated[bool, Field(description="Replace another model that stands there.")] = False
    base: Annotated[dict[str, Any], Field(description="Values for all models: the section train.")] = Field(
        default_factory=dict
    )
    models: Annotated[dict[str, dict[str, Any]], Field(description="Models by name: the section models.")] = Field(
        default_factory=dict
    )
    transfer_models: Annotated[
        dict[str, dict[str, Any]], Field(description="Models on pretrained weights by name: the section transfer.")
    ] = Field(default_factory=dict)
    recipes: Annotated[
        dict[str, dict[str, Any]], Field(description="Recipes by name: the sections recipes and transfer_recipes.")
    ] = Field(default_factory=dict)
    data_pointer: Annotated[
        Path, Field(description="DVC's pointer file of the raw images, read for their md5; may be missing.")
    ] = Path("data.dvc")

    def run(self) -> None:
        """Check the folder, copy it, and print what to run next."""
        if not self.folder.is_dir():
            raise MissingInputError(
                f"expected the folder of a trained model, received folder={self.folder}; copy the folder that "
                "`cxr train` wrote on the other machine"
            )
        from cxr.images.prepared import PreparedImages
        from cxr.lineage.adoption import adoption_notes, adoption_problems
        from cxr.lineage.model_origin import ModelOrigin, copy_model, is_copy
        from cxr.lineage.provenance import data_md5, file_digest
        from cxr.models.backend import load_keras

        origin = ModelOrigin.read(self.folder)
        model = self.model or origin.metadata.model
        training = self._training(model)
        expected = self._expected(training, origin.metadata.model)
        prepared = PreparedImages.open(self.prepared / str(training.recipe), training.recipe)
        load_keras()
        problems = adoption_problems(self.folder, origin, expected, prepared)
        is_present = is_copy(self.folder, training.trained, model)
        in_the_way = None if is_present or self.replace else self._model_in_the_way(training.trained)
        if problems:
            raise DataError("\n".join([*problems, *([in_the_way] if in_the_way else [])]))
        if in_the_way:
            raise ParameterError([f"{in_the_way}. The new one was {origin.sentence()}"])
        if not is_present:
            copy_model(self.folder, training.trained, model)
        self.show(
            f"{model} is {'already ' if is_present else ''}in {training.trained}, {origin.sentence()}",
            f"sha256 of {NETWORK_FILE}: {file_digest(training.trained / NETWORK_FILE)}",
            *(f"note: {note}" for note in
              adoption_notes(origin.metadata, origin.facts, Path(), data_md5(self.data_pointer))),
            "next:",
            *(f"  {command}" for command in self._next_commands(model, training)),
        )  # fmt: skip

    def _is_transfer(self, model: str) -> bool:
        return model not in self.models

    def _training(self, model: str) -> Train:
        """The training of this machine that the model stands for."""
        entries = {**self.transfer_models, **self.models}
        if model not in entries:
            raise ParameterError(
                [
                    f"expected an entry of the sections models or transfer "
                    f"({', '.join(entries) or 'none'}), received {model=} for {self.folder}; "
                    "give --params params.yaml, and add an entry, or name another one with --model"
                ]
            )
        models = "artifacts/transfer/models" if self._is_transfer(model) else "artifacts/models"
        training = Train.build(
            {**self.base, **entries[model], "model": model, "manifest": self.manifest, "splits": self.splits,
             "prepared": self.prepared, "trained": self.trained or Path(models) / model}
        )  # fmt: skip
        if training.recipe is None:
            raise ParameterError(
                [f"expected recipe of {model} to name a recipe, received recipe=None; set it in its entry"]
            )
        return training

    def _expected(self, training: Train, name_there: str) -> ExpectedTraining:
        from cxr.lineage.adoption import ExpectedTraining
        from cxr.training.split_data import SplitData

        defaults = {
            name: Train.model_fields[name].get_default(call_default_factory=True)
            for name in training.parameters()
            if not Train.model_fields[name].is_required()
        }
        recipe = Preprocess.build({**self.recipes.get(str(training.recipe), {}), "recipe": training.recipe})
        data = SplitData.read(self.manifest, self.splits)
        parameters = training.training_parameters() | {"model": name_there}
        return ExpectedTraining(training.model, parameters, defaults, recipe.chosen_recipe(), data)

    def _model_in_the_way(self, trained: Path) -> str | None:
        """A sentence on the other model that stands where this one would; None if there is none."""
        from cxr.lineage.model_origin import ModelOrigin

        if not trained.exists():
            return None
        try:
            other = f"a model that was {ModelOrigin.read(trained).sentence()}"
        except DataError:
            other = "a folder that is no complete model"
        return f"expected no other model in {trained}, received {other}; --replace true replaces it"

    def _next_commands(self, model: str, training: Train) -> list[str]:
        """Commands that record, evaluate and register the model."""
        graph, evaluations, register = "", "artifacts/evaluations", "cxr register --params params.yaml"
        if self._is_transfer(model):
            graph, evaluations = "transfer/dvc.yaml:", "artifacts/transfer/evaluations"
            register += " --transfer artifacts/transfer --ensemble artifacts/transfer/ensemble"
            register += " --registration artifacts/transfer/registration"
        evaluate = shlex.join(
            ["cxr", "evaluate", "--params", "params.yaml", "--model", model, "--manifest", str(self.manifest),
             "--splits", str(self.splits), "--prepared", str(self.prepared / str(training.recipe)),
             "--trained", str(training.trained), "--evaluation", f"{evaluations}/{model}"]
        )  # fmt: skip
        return [
            f"dvc commit --force {graph}train@{model}  # or DVC would train it again",
            f"dvc repro {graph}evaluate@{model}  # without DVC: {evaluate}",
            f"{register}  # `dvc repro` first trains the models that are missing",
        ]
