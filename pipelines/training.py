"""The training pipeline on Kubeflow: the graph of dvc.yaml, wiring only.

``cxr kubeflow compile`` calls :func:`pipeline`. Values come from ``params.yaml``, through the graph.
"""

from typing import TYPE_CHECKING

from kfp import dsl

if TYPE_CHECKING:
    from kfp.dsl.base_component import BaseComponent

    from cxr.kubeflow.pipeline_graph import Graph


def pipeline(graph: "Graph") -> "BaseComponent":
    """Wire the steps.

    Args:
        graph: makes the tasks.

    Returns:
        The pipeline. Its inputs are the source of the images and, for a DVC remote, their version: the cache of
        Kubeflow sees both.
    """

    @dsl.pipeline(name="cxr-training", description="Train, judge and register pneumonia classifiers.")
    def training(source: str = graph.source, data_version: str = graph.data_version) -> None:
        with dsl.ExitHandler(graph.outcome(), name="steps"):
            data = graph.task("fetch", {}, source=source, data_version=data_version).outputs["data"]
            manifest = graph.task("validate", {"data": data}).outputs["manifest"]
            splits = graph.task("resplit", {"manifest": manifest}).outputs["splits"]
            reference = graph.task("reference", {"data": data, "splits": splits}).outputs["reference"]
            prepared = {
                recipe: graph.task("preprocess", {"data": data, "manifest": manifest}, recipe=recipe).outputs[
                    "prepared"
                ]
                for recipe in graph.recipes
            }
            models, evaluations = {}, {}
            for name, recipe in graph.models.items():
                images = {"manifest": manifest, "splits": splits, "prepared": prepared[recipe]}
                train = graph.task(
                    "train", images, model=name, data_version=data_version, checkpoints=graph.checkpoints()
                )
                graph.keep_checkpoints(train, name)
                models[name] = train.outputs["trained"]
                judged = {"data": data, **images, "trained": models[name]}
                evaluations[name] = graph.task("evaluate", judged, model=name).outputs["evaluation"]
            results = {"data": data, "models": models, "evaluations": evaluations}
            ensemble = graph.task("ensemble", results).outputs["ensemble"]
            graph.task("register", {**results, "ensemble": ensemble, "splits": splits, "reference": reference})

    return training
