"""The folder of an export: network, metadata, how to use them, and what the comparison with the model has shown."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata as packages
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cxr.errors import ParameterError
from cxr.export.agreement import MAX_DIFFERENCE, Agreement, write_checked_file
from cxr.export.example import EXAMPLE_FILE, EXAMPLE_IMAGE_FILE, write_example
from cxr.export.onnx_file import BATCH, ONNX_FILE, OPSET
from cxr.export.probability_network import PROBABILITY, input_names
from cxr.export.readme import write_readme
from cxr.files import METADATA_FILE, SUMMARY_FILE, write_json, write_text
from cxr.images.recipes import Recipe
from cxr.inference.predictor import Predictor
from cxr.models.stored_files import DIGESTS_FILE, record_digests

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

README_FILE = "README.md"
FILES = frozenset({ONNX_FILE, README_FILE, METADATA_FILE, SUMMARY_FILE, EXAMPLE_IMAGE_FILE, EXAMPLE_FILE, DIGESTS_FILE})
"""Names of all files of an export."""
PACKAGES = ("keras", "onnx", "onnxruntime", "tensorflow", "tf2onnx")
"""Packages on which the content of the file depends."""


def expect_export_folder(folder: Path) -> None:
    """Refuse to replace a folder that holds anything but an earlier export.

    Args:
        folder: where an export is to be written.

    Raises:
        ParameterError: if it exists and holds other files, or is a file.
    """
    if not folder.exists():
        return
    others = [path.name for path in folder.iterdir() if path.name not in FILES] if folder.is_dir() else [folder.name]
    if others:
        raise ParameterError(
            [
                f"expected a new or empty folder, or one of an earlier export, received output={folder} with "
                f"{', '.join(sorted(others)[:3])}; name another one"
            ]
        )


def write_export(
    folder: Path,
    predictor: Predictor,
    prepared: Mapping[Recipe, NDArray[np.uint8]],
    *,
    name: str,
    version: str | None,
    batch_size: int,
) -> Agreement:
    """Write an export, if ONNX Runtime computes what the model computes.

    Args:
        folder: an empty folder; after an error its content is of no use.
        predictor: the calibrated model or ensemble.
        prepared: each recipe of the model to the validation images of its training, ``(n, size, size, planes)``.
        name: name of the model in documents, e.g. ``"version 3 of pneumonia-classifier"``.
        version: number of the version; None for a model of a folder.
        batch_size: images per call of the comparison.

    Returns:
        The comparison.

    Raises:
        DataError: if the network cannot be converted, or a probability differs by more than :data:`MAX_DIFFERENCE`.
    """
    agreement = write_checked_file(
        folder / ONNX_FILE, predictor, prepared, name=name, source="validation images", batch_size=batch_size
    )
    metadata = predictor.metadata
    metadata.write(folder)
    probability = write_example(folder, predictor)
    inputs = dict(zip(input_names(predictor.recipes), predictor.recipes, strict=True))
    page = write_readme(
        metadata, inputs, agreement, name=name, example=probability, runtime=packages.version("onnxruntime")
    )
    write_text(folder / README_FILE, page)
    write_json(folder / SUMMARY_FILE, _summary(predictor, inputs, agreement, version))
    record_digests(folder)
    return agreement


def _summary(
    predictor: Predictor, inputs: Mapping[str, Recipe], agreement: Agreement, version: str | None
) -> dict[str, Any]:
    """What a program needs to use the file, and what the comparison has shown."""
    metadata = predictor.metadata
    return {
        "format": "onnx",
        "opset": OPSET,
        "model": metadata.model,
        "version": version,
        "dataset_kind": metadata.dataset_kind,
        "inputs": [
            {
                "name": name,
                "dtype": "uint8",
                "shape": [BATCH, recipe.size, recipe.size, recipe.planes],
                "recipe": recipe.to_dict(),
            }
            for name, recipe in inputs.items()
        ],
        "output": {"name": PROBABILITY, "dtype": "float32", "shape": [BATCH], "calibrated": True},
        "classes": list(metadata.classes),
        "threshold": metadata.threshold,
        "agreement": {
            "images": agreement.images,
            "split_digest": metadata.split_digest,
            "largest_difference": agreement.largest_difference,
            "largest_allowed": MAX_DIFFERENCE,
            "changed_labels": agreement.changed_labels,
        },
        "packages": {name: packages.version(name) for name in PACKAGES},
    }
