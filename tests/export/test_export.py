"""`cxr export`: the file computes what the model computes, the folder says how to use it, and nothing half is left."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import pytest

from cxr.cli.main import main
from cxr.errors import DataError
from cxr.export.folder import FILES
from cxr.export.onnx_file import OnnxNetwork, write_onnx
from cxr.export.onnx_predictor import OnnxPredictor
from cxr.export.probability_network import input_names, probability_network
from cxr.export.readme import _steps
from cxr.images.recipes import Recipe, apply_recipe, recipe_named
from cxr.inference.predictor import EnsemblePredictor, Predictor
from cxr.models.metadata import Member, ModelMetadata
from cxr.models.networks import build_network
from cxr.models.stored_files import damaged_files
from support.detector_folders import detector_metadata
from support.model_folders import RECIPE, ModelFolders, make_metadata, small_network, write_models
from support.sweeps import exhaustive

SEED = 3


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> ModelFolders:
    """A model with its evaluation and its split, as the step `resplit` leaves it."""
    folders = write_models(tmp_path_factory.mktemp("export"))
    (folders.splits / "achieved.json").write_text(json.dumps({"digest": make_metadata().split_digest}))
    return folders


@pytest.fixture(scope="module")
def exported(folders: ModelFolders, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "onnx"
    assert export(folders, folder) == 0
    return folder


def export(folders: ModelFolders, output: Path, **changes: object) -> int:
    values = {
        "model": folders.models / "three_block",
        "images": folders.images[0].parent,
        "splits": folders.splits,
        "format": "onnx",
        "output": output,
    }
    return main(
        ["export", *(str(word) for key, value in {**values, **changes}.items() for word in (f"--{key}", value))]
    )


def largest_difference(predictor: Predictor, path: Path, images: int = 5) -> float:
    """Write the file, and compare it with the model on random images."""
    generator = np.random.default_rng(SEED)
    write_onnx(probability_network(predictor), path)
    prepared = {
        recipe: generator.integers(0, 256, (images, recipe.size, recipe.size, recipe.planes)).astype(np.uint8)
        for recipe in predictor.recipes
    }
    names = dict(zip(predictor.recipes, input_names(predictor.recipes), strict=True))
    received = OnnxNetwork(path, threads=1).probabilities({names[key]: value for key, value in prepared.items()})
    return float(np.abs(received - predictor.calibrated(predictor.predict_raw(prepared))).max())


def untrained(name: str, recipe: Recipe, temperature: float, **changes: Any) -> Predictor:
    """A network of the project with random weights."""
    keras.utils.set_random_seed(SEED)
    metadata = make_metadata(name, recipe=recipe.to_dict(), input_shape=recipe.input_shape, **changes)
    network = build_network(name, recipe.input_shape)
    return Predictor(network, metadata.with_calibration(temperature, 0.5, "by hand"))


def test_the_file_answers_as_the_model_does_for_any_number_of_images(folders: ModelFolders, exported: Path) -> None:
    images = np.stack([apply_recipe(RECIPE, cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) for path in folders.images])
    predictor = Predictor.load(folders.models / "three_block", ModelMetadata.read(folders.evaluations / "three_block"))
    expected = predictor.calibrated(predictor.probabilities(images))
    network = OnnxNetwork(exported / "model.onnx", threads=1)
    assert np.ptp(expected) > 0.5
    for count in (1, 7, len(images)):
        assert network.probabilities({"s2_resize": images[:count]}) == pytest.approx(expected[:count], abs=1e-6)


def test_the_folder_holds_the_facts_of_the_model_and_the_digest_of_each_file(
    folders: ModelFolders, exported: Path
) -> None:
    assert {path.name for path in exported.iterdir()} == FILES
    assert set(json.loads((exported / "digests.json").read_text())) == FILES - {"digests.json"}
    assert damaged_files(exported) == []
    metadata = ModelMetadata.read(exported)
    assert metadata == ModelMetadata.read(folders.evaluations / "three_block")
    summary = json.loads((exported / "summary.json").read_text())
    (entry,) = summary["inputs"]
    assert (entry["name"], entry["dtype"], entry["shape"]) == ("s2_resize", "uint8", ["batch", 16, 16, 1])
    assert Recipe.from_dict(entry["recipe"]) == RECIPE
    assert summary["threshold"] == metadata.threshold
    assert summary["agreement"]["images"] == 24 and 0 <= summary["agreement"]["largest_difference"] < 1e-6


def test_the_program_of_the_readme_runs_on_the_example(exported: Path) -> None:
    text = (exported / "README.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", program], cwd=exported, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(exported / "example.npz") as example:
        assert float(done.stdout.strip("[]\n")) == pytest.approx(float(example["probability"][0]), abs=1e-4)
    assert f"../environment/bin/pip install numpy onnxruntime=={version('onnxruntime')}\n" in text
    grey = cv2.imread(str(exported / "example.png"), cv2.IMREAD_UNCHANGED)
    with np.load(exported / "example.npz") as example:
        assert (example["s2_resize"] == apply_recipe(RECIPE, grey)[None]).all()


@pytest.mark.parametrize(
    "recipe",
    [
        recipe_named("s0_clahe_bilateral", size=50),
        recipe_named("s3_equalise_morphology", size=60),
        recipe_named("s4_resize", size=40, canny=True),
        recipe_named("s2_resize", size=30, fit="crop"),
    ],
    ids=lambda recipe: f"{recipe.name}-{recipe.fit}",
)
def test_the_steps_of_the_readme_prepare_an_image_as_the_recipe_does(recipe: Recipe) -> None:
    grey = cv2.resize(np.random.default_rng(SEED).integers(0, 256, (12, 15)).astype(np.uint8), (151, 120))
    planes, image = [], grey
    for line in _steps(recipe).splitlines():
        if "central square" in line:
            image = image[:, (151 - 120) // 2 :][:, :120]
            continue
        (call,) = re.findall(r"^\d+\. (?:Second plane: )?`([^`]*)`", line)
        result = eval(call, {**vars(cv2), "np": np, "image": image})  # noqa: S307 - our own text
        if not line.partition(". ")[2].startswith("Second"):
            image = result
            planes = [image]
        else:
            planes.append(result)
    assert (np.stack(planes, axis=-1) == apply_recipe(recipe, grey)).all()


def test_every_network_of_the_project_is_joined_to_one_file_with_its_mirror_image(tmp_path: Path) -> None:
    members = [
        untrained("shallow", recipe_named("s1_resize", size=32), 0.7),
        untrained("three_block", recipe_named("s2_resize"), 0.3, mirrored=True),
        untrained("residual_separable", recipe_named("s1_resize", size=40), 1.5),
        untrained("plain_cnn", recipe_named("s4_resize", size=24, canny=True), 0.05),
    ]
    cards = tuple(
        Member(member.metadata.model, weight, member.metadata)
        for member, weight in zip(members, (0.4, 0.9, 0.2, 1.5), strict=True)
    )
    metadata = make_metadata("weighted", members=cards).with_calibration(0.8, 0.5, "by hand")
    ensemble = EnsemblePredictor(members, metadata)
    assert input_names(ensemble.recipes) == ["s1_resize_1", "s2_resize", "s1_resize_2", "s4_resize"]
    assert largest_difference(ensemble, tmp_path / "model.onnx") < 1e-5
    generator = np.random.default_rng(SEED)
    files = [cv2.imencode(".png", generator.integers(0, 256, (90, 80)).astype(np.uint8))[1].tobytes() for _ in range(5)]
    in_onnx_runtime = OnnxPredictor(OnnxNetwork(tmp_path / "model.onnx", threads=1), metadata)
    for received, expected in zip(in_onnx_runtime.predict(files), ensemble.predict(files), strict=True):
        assert received.probability == pytest.approx(expected.probability, abs=1e-5)
        assert received.raw_probability == pytest.approx(expected.raw_probability, abs=1e-5)
        assert received.label == expected.label


def normalised() -> keras.Model:
    image = keras.Input(RECIPE.input_shape)
    x = keras.layers.Normalization(mean=[0.4], variance=[0.04])(image)
    x = keras.layers.GlobalMaxPooling2D()(keras.layers.Conv2D(4, 3)(x))
    return keras.Model(image, keras.layers.Dense(1, activation="sigmoid")(x))


def without_dense_end() -> keras.Model:
    image = keras.Input(RECIPE.input_shape)
    x = keras.layers.Dense(1)(keras.layers.Flatten()(image))
    return keras.Model(image, keras.layers.Activation("sigmoid")(x))


@pytest.mark.parametrize("build", [normalised, *exhaustive(without_dense_end, lambda: small_network(SEED, outputs=2))])
def test_networks_with_other_ends_and_beginnings_are_converted(build: Any, tmp_path: Path) -> None:
    keras.utils.set_random_seed(SEED)
    predictor = Predictor(build(), make_metadata().with_calibration(0.5, 0.6, "by hand"))
    assert largest_difference(predictor, tmp_path / "model.onnx") < 1e-5


def test_an_operation_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    image = keras.Input(RECIPE.input_shape)
    x = keras.layers.Flatten()(keras.ops.erfinv(image * 0.9))
    network = keras.Model(image, keras.layers.Dense(1, activation="sigmoid")(x))
    predictor = Predictor(network, make_metadata().with_calibration(1.0, 0.5, "by hand"))
    with pytest.raises(DataError, match=r"operations that ONNX has, received Erfinv"):
        write_onnx(probability_network(predictor), tmp_path / "model.onnx")


def test_a_model_that_does_not_agree_is_refused_and_the_earlier_export_stays(
    exported: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    broken = write_models(tmp_path / "broken")
    (broken.splits / "achieved.json").write_text(json.dumps({"digest": make_metadata().split_digest}))
    network = small_network(SEED)
    kernel, bias = network.layers[-1].get_weights()
    network.layers[-1].set_weights([kernel, bias + np.nan])
    network.save(broken.models / "three_block" / "model.keras")
    output = tmp_path / "onnx"
    output.mkdir()
    for path in exported.iterdir():
        (output / path.name).write_bytes(path.read_bytes())
    assert export(broken, output) == 1
    assert "to within 0.0001, received a largest difference of nan on 24 validation images" in capfd.readouterr().err
    assert damaged_files(output) == [] and {path.name for path in output.iterdir()} == FILES
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_folder_with_other_files_is_not_replaced(
    folders: ModelFolders, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    assert export(folders, tmp_path) == 2
    assert f"received output={tmp_path} with thesis.txt" in capfd.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_another_split_missing_images_and_a_detector_are_refused(
    folders: ModelFolders, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "splits"
    other.mkdir()
    output = tmp_path / "onnx"
    assert export(folders, output, splits=other) == 2
    assert "expected a split" in capfd.readouterr().err
    (other / "splits.parquet").write_bytes((folders.splits / "splits.parquet").read_bytes())
    (other / "achieved.json").write_text(json.dumps({"digest": "0" * 64}))
    assert export(folders, output, splits=other) == 1
    assert "expected the split that three_block was trained on" in capfd.readouterr().err
    assert export(folders, output, images=other) == 2
    assert "expected the 24 validation images" in capfd.readouterr().err
    detector = tmp_path / "retinanet"
    detector.mkdir()
    detector_metadata().with_box_choice(0.5, 1.0, "by hand").write(detector)
    assert export(folders, output, model=detector) == 1
    assert f"received model=retinanet in {detector}, a detector, which draws boxes" in capfd.readouterr().err
    assert not output.exists()
