"""The folder ``mlflow/`` at the root holds what the server's image needs and must not be taken for the package."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_folder_is_no_package() -> None:
    assert (ROOT / "mlflow" / "README.md").is_file()
    assert not list((ROOT / "mlflow").glob("*.py"))
    assert not list((ROOT / "mlflow").rglob("__init__.py"))


def test_importing_mlflow_at_the_root_finds_the_package() -> None:
    code = "import importlib.util as u; spec = u.find_spec('mlflow'); print(spec.origin)"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert Path(answer.stdout.strip()).parts[-2:] == ("mlflow", "__init__.py")
    assert not Path(answer.stdout.strip()).is_relative_to(ROOT / "mlflow")


def test_importing_the_tracking_modules_does_not_import_mlflow() -> None:
    code = (
        "import sys, cxr.tracking, cxr.tracking.registry, cxr.tracking.versions, cxr.steps.register;"
        "print('mlflow' in sys.modules, 'keras' in sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.split() == ["False", "False"]
