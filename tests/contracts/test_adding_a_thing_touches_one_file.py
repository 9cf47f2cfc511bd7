"""Adding a network, a recipe, a step, a metric, a refusal reason or a data source touches one file of the package.

Each test does what ``docs/extending.md`` says, in a copy of the project, and counts the files of ``src/cxr`` that are
new or different. What else must list the new thing is written by one command, which the failing check names.
`make test` adds what is quick to add; the network stands there for all that the graphs have to list.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

Project = Path

NETWORK = '''"""A network of one convolution."""

import keras
from keras import layers

from cxr.models.blocks import convolution, probability


def build(input_shape, *, dropout=0.0):
    """Build the network."""
    inputs = keras.Input(input_shape, name="image")
    x = convolution(inputs, 4, 3, "conv1")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, probability(x), name="tiny")
'''
STEP = '''"""Count: count the images of a manifest."""

from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from cxr.steps.base import Input, Output, Step


class CountImages(Step):
    """Count the images of a manifest."""

    name: ClassVar[str] = "count"
    sections: ClassVar[tuple[str, ...]] = ("count",)

    manifest: Annotated[Path, Input("Manifest"), Field(description="Folder of the manifest.")]
    counts: Annotated[Path, Output("Counts"), Field(description="Folder to write.")]
    label: Annotated[str, Field(description="Label of the images that are counted.")] = "PNEUMONIA"

    def run(self) -> None:
        """Read the manifest and write the number."""
        from cxr.data.manifest.builder import read_manifest

        rows = read_manifest(self.manifest)
        (self.counts / "count.txt").write_text(str((rows["label"] == self.label).sum()))
'''
STAGE = """
  count:
    cmd: cxr count --params params.yaml --manifest artifacts/manifest --counts artifacts/counts
    deps:
      - artifacts/manifest
      - artifacts/code/count.md5
    params: [count]
    outs: [artifacts/counts]

metrics:
"""
SOURCE = '''"""Images of a shelf."""

from typing import ClassVar

from cxr.data.fetching.source import ListedSource


class ShelfSource(ListedSource):
    """Folders by a short name."""

    scheme: ClassVar[str] = "shelf"
    spellings: ClassVar[tuple[str, ...]] = ("shelf:NAME",)

    def open(self):
        """List the folder of the name."""
        from pathlib import Path

        from cxr.storage.contents import FolderContents

        return FolderContents(Path("shelves") / self.request.source.partition(":")[2], self.label)
'''
METRIC = """
METRICS = {**METRICS, "balanced_accuracy": Metric(
    "Balanced accuracy", "decision", lambda tp, fp, tn, fn: _ratio(tp, tp + fn) / 2 + _ratio(tn, tn + fp) / 2,
    is_share=True,
)}
"""
RECIPE = """
RECIPES["s2_equalised"] = Recipe("s2_equalised", "S2", 64, 1, equalise=True)
"""
REASON = '''

def _check_darkness(inspected: InspectedImage) -> str | None:
    """An example of a further reason."""
    return "it is nearly black; expose it again" if inspected.image.grey.mean() < 5 else None


REASONS = {"too_dark": _check_darkness, **REASONS}
'''


@pytest.fixture
def project(repository: Path, tmp_path: Path) -> Project:
    folder = tmp_path / "project"
    # With the compiled files: each test would compile the package again.
    for name in ("src", "transfer", "regions", "components", "pipelines", "tests/contracts", "tests/support"):
        shutil.copytree(repository / name, folder / name)
    for name in ("dvc.yaml", "params.yaml", "pyproject.toml", "Makefile", "tests/conftest.py"):
        shutil.copy(repository / name, folder / name)
    return folder


def package_files(project: Project) -> dict[str, str]:
    paths = (path for path in (project / "src" / "cxr").rglob("*") if path.suffix != ".pyc" and path.is_file())
    return {str(path.relative_to(project)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


def changed_files(project: Project, change: Callable[[], object]) -> list[str]:
    before = package_files(project)
    change()
    after = package_files(project)
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def run(project: Project, *command: str) -> subprocess.CompletedProcess[str]:
    path = f"{project / 'src'}{os.pathsep}{project / 'tests'}"
    environment = {**os.environ, "PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(
        [sys.executable, *command], cwd=project, env=environment, capture_output=True, text=True, timeout=300
    )


def cxr(project: Project, *words: str) -> str:
    result = run(project, "-m", "cxr.cli.main", *words)
    assert result.returncode == 0, result.stderr
    return result.stdout


def python(project: Project, code: str) -> str:
    result = run(project, "-c", code)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def check(project: Project, *tests: str) -> subprocess.CompletedProcess[str]:
    files = [f"tests/contracts/{name}" for name in tests]
    return run(project, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "-p", "pytest_timeout", *files)


def edit_parameters(project: Project, change: Callable[[dict], object]) -> None:
    path = project / "params.yaml"
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def test_a_network_is_one_file_and_its_entry(project: Project) -> None:
    path = project / "src/cxr/models/tiny.py"
    assert changed_files(project, lambda: path.write_text(NETWORK)) == ["src/cxr/models/tiny.py"]
    edit_parameters(
        project,
        lambda values: values["models"].update(tiny={**values["models"]["three_block"], "architecture": "tiny"}),
    )
    tests = (
        "test_graph_and_parameters_agree.py::test_the_generated_parts_of_the_graph_are_up_to_date",
        "test_graph_and_parameters_agree.py::test_every_network_has_an_entry_and_no_name_is_used_twice",
        "test_graph_and_parameters_agree.py::test_leaderboard_and_plots_hold_every_model_and_the_ensemble",
    )
    forgotten = check(project, *tests)
    assert forgotten.returncode == 1 and "make generate" in forgotten.stdout
    cxr(project, "graph", "--params", "params.yaml")
    assert check(project, *tests).returncode == 0
    shape = "from cxr.models.networks import build_network; print(build_network('tiny', (32, 32, 1)).output_shape)"
    assert python(project, shape) == "(None, 1)"


@pytest.mark.exhaustive
def test_a_recipe_is_a_row_in_one_file(project: Project, tmp_path: Path) -> None:
    path = project / "src/cxr/images/recipes.py"
    assert changed_files(project, lambda: append(path, RECIPE)) == ["src/cxr/images/recipes.py"]
    edit_parameters(
        project,
        lambda values: (
            values["recipes"].update(s2_equalised={}),
            values["models"]["three_block"].update(recipe="s2_equalised"),
            values["recipes"].pop("s2_resize"),
        ),
    )
    assert check(project, "test_graph_and_parameters_agree.py").returncode == 0
    code = (
        "import numpy as np; from cxr.images.recipes import apply_recipe, recipe_named; "
        "print(apply_recipe(recipe_named('s2_equalised'), np.eye(200, dtype=np.uint8) * 40).max())"
    )
    assert int(python(project, code)) > 40


@pytest.mark.exhaustive
def test_a_step_is_one_file_with_its_section_and_stage(project: Project, tmp_path: Path) -> None:
    path = project / "src/cxr/steps/count.py"
    assert changed_files(project, lambda: path.write_text(STEP)) == ["src/cxr/steps/count.py"]
    edit_parameters(project, lambda values: values.update(count={"label": "NORMAL"}))
    graph = project / "dvc.yaml"
    text = graph.read_text(encoding="utf-8")
    tests = ("test_graph_and_parameters_agree.py",)
    without_code = STAGE.replace("      - artifacts/code/count.md5\n", "")
    graph.write_text(text.replace("\nmetrics:\n", without_code), encoding="utf-8")
    forgotten = check(project, *tests)
    assert forgotten.returncode == 1 and "name artifacts/code/count.md5" in forgotten.stdout
    graph.write_text(text.replace("\nmetrics:\n", STAGE), encoding="utf-8")
    assert check(project, *tests).returncode == 0
    cxr(project, "code")
    assert "  src/cxr/steps/count.py\n" in (project / "artifacts/code/count.md5").read_text(encoding="utf-8")
    assert "Count the images of a manifest." in cxr(project, "count", "--help")
    assert "count" in cxr(project, "--help")


def test_a_metric_on_test_is_a_row_in_one_file(project: Project) -> None:
    path = project / "src/cxr/evaluation/metrics.py"
    assert changed_files(project, lambda: append(path, METRIC)) == ["src/cxr/evaluation/metrics.py"]
    code = (
        "from support.simulated_predictions import evaluated, predictions\n"
        "evaluation = evaluated(predictions(seed=1), resamples=20)\n"
        "print(evaluation.report['test']['at_threshold']['balanced_accuracy']['value'])\n"
        "print(*evaluation.summary())\n"
    )
    value, summary = python(project, code).splitlines()
    assert 0.5 < float(value) <= 1
    assert "test_balanced_accuracy" in summary.split()


def test_a_refusal_reason_is_a_row_in_one_file(project: Project) -> None:
    path = project / "src/cxr/inference/reference/refusals.py"
    names = changed_files(project, lambda: append(path, REASON))
    assert names == ["src/cxr/inference/reference/refusals.py"]
    code = (
        "import numpy as np\n"
        "from cxr.images.decoding import DecodedImage\n"
        "from cxr.inference.reference.refusals import find_refusal\n"
        "image = DecodedImage(np.zeros((64, 64), np.uint8), 0.0)\n"
        "print(find_refusal(None, image, None))\n"
    )
    assert python(project, code) == "too_dark: it is nearly black; expose it again"


def test_a_data_source_is_one_file(project: Project, phantom_folder: Path) -> None:
    path = project / "src/cxr/data/sources/shelf.py"
    assert changed_files(project, lambda: path.write_text(SOURCE)) == ["src/cxr/data/sources/shelf.py"]
    shutil.copytree(phantom_folder, project / "shelves" / "phantoms")
    cxr(project, "fetch", "--source", "shelf:phantoms", "--data", "fetched", "--expect", "any")
    copied = {file.name for file in (project / "fetched").rglob("*.jpeg")}
    assert copied == {file.name for file in phantom_folder.rglob("*.jpeg")}
    assert "shelf:NAME" in cxr(project, "fetch", "--help")
