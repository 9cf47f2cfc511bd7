"""What a model was trained on: its split and its prepared images are those that it is to be evaluated on."""

from __future__ import annotations

from pathlib import Path

from cxr.errors import DataError
from cxr.files import read_json
from cxr.images.prepared import PreparedImages
from cxr.images.recipes import Recipe
from cxr.models.metadata import ModelMetadata


def check_model_fits(folder: Path, model: str, metadata: ModelMetadata, prepared: PreparedImages) -> None:
    """Check that a model was trained on a split and on images of a recipe.

    Args:
        folder: folder of the split, with ``achieved.json``.
        model: expected name of the model.
        metadata: metadata of the trained model.
        prepared: prepared images that are to be predicted.

    Raises:
        DataError: if the model has another name, or was trained on another split, whose training images may be among
            these test images, or on images prepared by another recipe.
    """
    if model != metadata.model:
        raise DataError(
            f"expected the metadata of {model}, received model={metadata.model}; give the folder of {model}"
        )
    check_split_fits(folder, metadata)
    check_recipe_fits(metadata, prepared)


def check_split_fits(folder: Path, metadata: ModelMetadata) -> None:
    """Check that a model was trained on a split.

    Args:
        folder: folder of the split, with ``achieved.json``.
        metadata: metadata of the trained model.

    Raises:
        DataError: if the digests differ.
    """
    digest = read_json(folder / "achieved.json")["digest"]
    if digest != metadata.split_digest:
        raise DataError(
            f"expected the split that {metadata.model} was trained on (digest={metadata.split_digest}), "
            f"received splits={folder} with {digest=}; train the model again"
        )


def check_recipe_fits(metadata: ModelMetadata, prepared: PreparedImages) -> None:
    """Check that images are prepared as those that a model was trained on.

    Args:
        metadata: metadata of the trained model.
        prepared: prepared images that are to be predicted.

    Raises:
        DataError: if they have another recipe.
    """
    if prepared.recipe != Recipe.from_dict(metadata.recipe):
        raise DataError(
            f"expected images of the recipe that {metadata.model} was trained on ({metadata.recipe}), "
            f"received {prepared.recipe.to_dict()}; run `cxr preprocess` with that recipe"
        )
