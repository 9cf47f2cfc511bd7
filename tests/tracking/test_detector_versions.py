"""A version of a detector draws boxes with MLflow alone, and is found for serving as classifiers are."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from mlflow.models import Model

import cxr
from cxr.images.decoding import decode_grey
from cxr.lineage.reproduction import plan_reproduction
from cxr.models.metadata import ModelMetadata
from cxr.promotion.candidates import RunFolders
from cxr.promotion.model_card.writer import write_model_card
from cxr.regions.predictor import RegionPredictor
from cxr.results.model_result import read_metrics
from cxr.serving.model_source import find_version
from cxr.tracking.lineage_reader import read_lineage
from cxr.tracking.model_package import DETECTOR_PACKAGE
from cxr.tracking.registry_reader import fetch_version
from cxr.tracking.store import Store
from support.detector_folders import DetectorFolders, region_policy
from support.dicom_files import dicom_file
from support.registrations import register

NAME = "pneumonia-regions"
COLUMNS = ["path", "x", "y", "width", "height", "score"]


@pytest.fixture
def registered(store: Store, tmp_path: Path) -> DetectorFolders:
    """A registered detector whose threshold some of its boxes reach, although it was not trained."""
    folders = DetectorFolders(tmp_path)
    evaluated = folders.write("retinanet")
    choice = replace(evaluated, threshold=0.011)
    choice.write(folders.evaluations / "retinanet")
    run = RunFolders(folders.models, folders.evaluations, folders.splits, detectors=True)
    register(store, run, experiment="pneumonia", registered_name=NAME, policy=region_policy(resamples=100))
    return folders


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    """Noise of several sizes as PNG and DICOM files."""
    generator = np.random.default_rng(3)
    (tmp_path / "images").mkdir()
    paths = []
    for number, shape in enumerate(((120, 160), (300, 210), (96, 96))):
        pixels = generator.integers(0, 256, shape, dtype=np.uint8)
        path = tmp_path / "images" / f"{number}.{'dcm' if number == 2 else 'png'}"
        path.write_bytes(dicom_file(pixels) if number == 2 else cv2.imencode(".png", pixels)[1].tobytes())
        paths.append(path)
    return paths


def expected_boxes(folders: DetectorFolders, images: list[Path]) -> pd.DataFrame:
    metadata = ModelMetadata.read(folders.evaluations / "retinanet")
    predictor = RegionPredictor.load(folders.models / "retinanet", metadata)
    boxes = predictor.predict({str(path): decode_grey(path.read_bytes()) for path in images})
    assert boxes["path"].nunique() == len(images), "the threshold is one that boxes of each image reach"
    return boxes


@pytest.mark.exhaustive  # test_registry asks a version of a classifier there
def test_a_version_draws_the_boxes_of_the_detector_in_a_process_without_the_package(
    registered: DetectorFolders, store: Store, images: list[Path], tmp_path: Path
) -> None:
    code = """
import base64, importlib.util, json, sys
from pathlib import Path
sys.path = [path for path in sys.path if not path.endswith("/src")]
assert importlib.util.find_spec("cxr") is None, "the package must not be importable before loading"
import mlflow, pandas as pd
model = mlflow.pyfunc.load_model("models:/pneumonia-regions@champion")
data = [Path(path).read_bytes() for path in sys.argv[1:]]
tables = {
    "paths": model.predict(pd.DataFrame({"image": sys.argv[1:]})),
    "bytes": model.predict(data),
    "base64": model.predict([base64.b64encode(file).decode() for file in data]),
    "nothing": model.predict(pd.DataFrame({"image": []})),
}
print(json.dumps({form: table.to_dict("list") for form, table in tables.items()}))
"""
    script = tmp_path / "draw.py"
    script.write_text(code)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = f"import sys; sys.path += {[path for path in sys.path if path.endswith('-packages')]!r}; "
    command += "sys.argv = sys.argv[1:]; exec(compile(open(sys.argv[0]).read(), sys.argv[0], 'exec'))"
    process = subprocess.run(
        [sys.executable, "-S", "-c", command, str(script), *map(str, images)],
        capture_output=True, text=True, cwd=tmp_path, env={**environment, "MLFLOW_TRACKING_URI": store.uri},
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    tables = {name: pd.DataFrame(columns) for name, columns in json.loads(process.stdout.splitlines()[-1]).items()}
    expected = expected_boxes(registered, images)
    for form in ("paths", "bytes", "base64"):
        assert list(tables[form]) == COLUMNS, form
        np.testing.assert_allclose(tables[form][COLUMNS[1:]], expected[COLUMNS[1:]], atol=1e-3, err_msg=form)
    assert tables["paths"]["path"].tolist() == expected["path"].tolist()
    positions = [str(images.index(Path(path))) for path in expected["path"]]
    assert tables["bytes"]["path"].tolist() == tables["base64"]["path"].tolist() == positions
    assert list(tables["nothing"]) == COLUMNS and tables["nothing"].empty


def test_the_alias_leads_to_the_folder_of_a_detector(
    registered: DetectorFolders, store: Store, images: list[Path], tmp_path: Path
) -> None:
    assert find_version(store, NAME, "champion", None, remedy="register one") == ("1", "champion")
    (tmp_path / "fetched").mkdir()
    folder = fetch_version(store, NAME, "1", tmp_path / "fetched")
    boxes = RegionPredictor.load(folder).predict({str(path): decode_grey(path.read_bytes()) for path in images})
    pd.testing.assert_frame_equal(boxes, expected_boxes(registered, images))
    assert (folder / "MODEL_CARD.md").is_file()


def test_the_package_of_a_version_says_what_goes_in_and_out(registered: DetectorFolders, store: Store) -> None:
    version = store.connect().get_model_version(NAME, "1")
    assert Model.load(version.source).signature.outputs.input_names() == COLUMNS
    assert store.client.get_registered_model(NAME).description.startswith("Opacities on chest radiographs")
    assert version.description.startswith("# retinanet: opacities on chest radiographs")


def test_a_detector_is_reproduced_by_its_own_graph(registered: DetectorFolders, store: Store, tmp_path: Path) -> None:
    plan = plan_reproduction(read_lineage(store, NAME, "champion"), tmp_path, "c" * 40, None)
    assert "dvc repro regions/dvc.yaml:evaluate@retinanet" in plan.commands
    assert "make .venv/gpu.stamp" in plan.commands and plan.measures["box_scale"] > 0


def test_a_version_carries_the_modules_that_drawing_boxes_imports_and_no_other() -> None:
    source = Path(cxr.__file__).parent
    needed: set[Path] = set()
    queue = [source / "regions" / "predictor.py", source / "inference" / "predictor.py",
             source / "inference" / "reference" / "reference.py"]  # fmt: skip
    while queue:
        file = queue.pop()
        if file in needed:
            continue
        needed.add(file)
        needed.update(folder / "__init__.py" for folder in file.parents if folder.is_relative_to(source))
        imports = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom))
        modules = (str(node.module).split(".") for node in imports)
        paths = (source.joinpath(*parts[1:]) for parts in modules if parts[0] == "cxr")
        queue += [path / "__init__.py" if path.is_dir() else path.with_suffix(".py") for path in paths]
    files = {source / name for name in DETECTOR_PACKAGE if name.endswith(".py")}
    folders = {source / name for name in DETECTOR_PACKAGE if not name.endswith(".py")}
    assert {file for file in needed if not any(file.is_relative_to(folder) for folder in folders)} == files


def test_the_model_card_says_what_the_detector_is(tmp_path: Path) -> None:
    folders = DetectorFolders(tmp_path)
    metadata = folders.write("retinanet")
    metrics = read_metrics(folders.evaluations / "retinanet")
    text = write_model_card(metadata, metrics)
    assert metadata.detector is not None
    for line in (
        f"- Anchors: version `{metadata.detector.anchors}`",
        "RetinaNet on efficientnet_lite0, without squeeze-and-excitation blocks",
        f"A box counts at a score of {metadata.threshold:.4f} and above. Width and height are multiplied by",
        "Sensitivity at 0.5 false positives per image",
        "| Grad-CAM boxes |",
        "| hard |",
        "one row per box: path, x, y, width, height, score",
        "may get boxes, too",
    ):
        assert line in text, line
    counts = metrics["test"]["strata"]["pneumonia"]["images"]
    assert f"60 images of {metrics['test']['patients']} patients ({60 - counts} normal, {counts} with" in text
    assert "calibrated probability" not in text.replace("no calibrated probabilities", "")
    assert "says nothing about patients" not in text
    assert len(write_model_card(metadata, metrics, limit=5000)) <= 5000
    assert "figures are not measured" in write_model_card(metadata, {})
    assert "Images of another data set: not measured" in text
    shares = {"value": 0.9, "low": 0.8, "high": 0.95}
    metrics["unmarked"] = {"images": 624, "data": {"name": "kermany", "kind": "patients"}, "auroc": shares,
                           "area_in_lungs": shares, "area_in_lungs_by_chance": 0.4}  # fmt: skip
    assert (
        "624 test images of kermany (patients), without marked opacities: AUROC of the highest score 0.900 (0.800"
        in (write_model_card(metadata, metrics))
    )
    phantoms = replace(metadata, dataset={"name": "phantom", "kind": "phantom"})
    metrics["data"]["note"] = "drawn phantoms; says nothing about patients"
    text = write_model_card(phantoms, metrics)
    assert "**drawn phantoms; says nothing about patients**" in text and "Trained on phantoms" in text
