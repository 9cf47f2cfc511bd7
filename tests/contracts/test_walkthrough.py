"""The notebook runs as it is, and holds no outputs in git.

`make test` asks whether its cells are Python and name what the package has; `make test-exhaustive` runs it.
"""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="module")
def notebook(repository: Path) -> Any:
    import nbformat

    return nbformat.read(repository / "docs" / "walkthrough.ipynb", as_version=4)


def test_it_is_valid_and_holds_no_outputs(notebook: Any) -> None:
    import nbformat

    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) > 5
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code)


def test_its_cells_are_python_and_import_what_exists(notebook: Any) -> None:
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    imports = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    names = [(node.module, alias.name) for node in imports for alias in node.names if node.module is not None]
    assert {module.partition(".")[0] for module, _ in names} >= {"cxr"}
    for module, name in names:
        assert hasattr(import_module(module), name), f"{module} has no {name}"


@pytest.mark.exhaustive
def test_it_runs_and_reads_a_prediction(notebook: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # pages that ran in this process may have set it
    executed = nbformat.from_dict(notebook)
    NotebookClient(executed, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}).execute()
    outputs = [output for cell in executed.cells if cell.cell_type == "code" for output in cell.outputs]
    printed = "".join(output.text for output in outputs if output.output_type == "stream")
    answer = re.search(r"answer: (\w+), probability ([\d.]+), threshold ([\d.]+)", printed)
    assert answer
    assert answer[1] == ("PNEUMONIA" if float(answer[2]) >= float(answer[3]) else "NORMAL")
    assert "largest number of sides of a patient: 1\n" in printed
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 3
    assert not list(tmp_path.glob("walkthrough-*")), "the last cell removes the folder"
