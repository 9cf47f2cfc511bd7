"""No file that prediction loads can run code; ruff's rules in pyproject.toml keep pickle out of the project."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from cxr.errors import DataError
from cxr.inference.predictor import Predictor
from support.model_folders import RECIPE, make_metadata

UNSAFE = {"allow_pickle", "safe_mode", "custom_objects", "weights_only"}
"""Arguments by which a reader is told to run what a file holds, unless they are written as below."""
SAFE = {("allow_pickle", False), ("safe_mode", True)}


def unsafe_arguments(source: str) -> list[tuple[str, Any]]:
    unsafe = []
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call):
            for keyword in call.keywords:
                value = keyword.value.value if isinstance(keyword.value, ast.Constant) else ast.unparse(keyword.value)
                if keyword.arg in UNSAFE and (keyword.arg, value) not in SAFE:
                    unsafe.append((keyword.arg, value))
    return unsafe


def test_no_reader_is_told_to_run_code(repository: Path) -> None:
    assert unsafe_arguments("np.load(x, allow_pickle=True); load(y, safe_mode=flag)") == [
        ("allow_pickle", True),
        ("safe_mode", "flag"),
    ]
    sources = sorted((repository / "src").rglob("*.py"))
    assert len(sources) > 100
    assert {str(path): unsafe for path in sources if (unsafe := unsafe_arguments(path.read_text("utf-8")))} == {}
    assert any("safe_mode=True" in path.read_text("utf-8") for path in sources)


@pytest.mark.parametrize(
    "line", ["import pickle", "from joblib import load", "import torch; torch.load('x')", "import yaml; yaml.load('x')"]
)
def test_make_check_refuses_readers_that_run_code(repository: Path, line: str) -> None:
    command = [sys.executable, "-m", "ruff", "check", "--select", "TID251,S3,S5", "--output-format", "concise"]
    result = subprocess.run(
        [*command, "--stdin-filename", "src/cxr/reader.py", "-"],
        input=f"{line}\n", cwd=repository, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert result.returncode == 1 and ("TID251" in result.stdout or "S506" in result.stdout), result
    assert "ruff check ." in (repository / "Makefile").read_text("utf-8")


class Shouting(keras.layers.Layer):
    """A layer of a module: safe mode must not import it by the name that a file gives."""

    ran = False

    def call(self, inputs: Any) -> Any:
        return inputs

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Shouting:
        cls.ran = True
        return super().from_config(config)


def saved(folder: Path, layer: Any) -> Path:
    image = keras.Input(RECIPE.input_shape)
    x = keras.layers.Flatten()(layer(image))
    keras.Model(image, keras.layers.Dense(1, activation="sigmoid")(x)).save(folder / "model.keras")
    make_metadata().write(folder)
    return folder


def test_a_network_with_a_class_of_another_module_is_not_loaded(tmp_path: Path) -> None:
    folder = saved(tmp_path, Shouting())
    Shouting.ran = False
    with pytest.raises(DataError, match=r"safe mode, received .*model\.keras \(Could not locate class 'Shouting'"):
        Predictor.load(folder)
    assert not Shouting.ran


def test_a_network_that_calls_what_a_file_names_is_not_loaded(tmp_path: Path) -> None:
    """The file of an ordinary network, changed by hand so that its layer is a program's function."""
    import json
    import shutil
    import zipfile

    whole = saved(tmp_path, keras.layers.ReLU()) / "model.keras"
    with zipfile.ZipFile(whole) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    proof = tmp_path / "ran"
    config = json.loads(files["config.json"])
    relu = next(layer for layer in config["config"]["layers"] if layer["class_name"] == "ReLU")
    relu |= {"module": "os", "class_name": "system", "registered_name": None, "config": f"touch {proof}"}
    files["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(tmp_path / "changed", "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    shutil.move(tmp_path / "changed", whole)
    with pytest.raises(DataError, match=r"safe mode, received .*model\.keras \(.*system\)"):
        Predictor.load(tmp_path)
    assert not proof.exists()


def test_an_array_of_objects_is_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "reference.npz", statistics=np.array([{"a": 1}], dtype=object))
    with np.load(tmp_path / "reference.npz") as file, pytest.raises(ValueError, match="allow_pickle=False"):
        file["statistics"]
