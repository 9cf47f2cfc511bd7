"""From a pipeline script and ``params.yaml`` to the package that Kubeflow takes."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from cxr.errors import ParameterError
from cxr.files import whole_file
from cxr.kubeflow.pipeline_graph import Graph
from cxr.steps.parameters import read_sections

if TYPE_CHECKING:
    from kfp.dsl.base_component import BaseComponent

SCRIPTS = Path("pipelines")
"""Folder of the pipeline scripts, in the root of the repository."""


def build_pipeline(name: str, params: Path) -> BaseComponent:
    """Wire a pipeline with the values of a parameter file.

    Args:
        name: its script without suffix: ``training`` or ``scoring``.
        params: the parameter file.

    Returns:
        The pipeline.

    Raises:
        ParameterError: if there is no such script, or a value is wrong.
    """
    script = SCRIPTS / f"{name}.py"
    if not script.is_file():
        there = ", ".join(sorted(path.stem for path in SCRIPTS.glob("*.py"))) or "none; run this in the repository"
        raise ParameterError([f"expected a pipeline of {SCRIPTS}/, received pipeline={name!r}; there are: {there}"])
    graph = Graph(read_sections(params))
    found = importlib.util.spec_from_file_location(f"pipeline_{name}", script)
    if found is None or found.loader is None:
        raise ParameterError([f"expected a Python script, received {script}"])
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    made: BaseComponent = module.pipeline(graph)
    return made


def compile_pipeline(name: str, params: Path, output: Path) -> Path:
    """Write a pipeline as a package: its graph, and what the containers need of Kubernetes.

    Args:
        name: its script without suffix.
        params: the parameter file.
        output: the file to write, ``.yaml``; it appears whole or not at all.

    Returns:
        The file.

    Raises:
        ParameterError: if there is no such script, or a value is wrong.
    """
    made = build_pipeline(name, params)
    from kfp.compiler import Compiler

    with whole_file(output) as partial:
        Compiler().compile(made, str(partial))
    return output
