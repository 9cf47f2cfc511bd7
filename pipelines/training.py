"""The training pipeline on Kubeflow: it connects the same steps as dvc.yaml.

``cxr kubeflow compile`` calls :func:`pipeline`. The values come from ``params.yaml`` through the graph.
"""

from typing import TYPE_CHECKING

from kfp import dsl

if TYPE_CHECKING:
    from kfp.dsl.base_component import BaseComponent

    from cxr.kubeflow.pipeline_graph import PipelineGraph


def pipeline(graph: "PipelineGraph") -> "BaseComponent":
    """Connect the steps.

    Args:
        graph: adds the tasks.

    Returns:
        The pipeline: of classifiers, and with ``containers.regions`` of detectors. Its inputs are the source of the
        images and, for a DVC remote, their version, so that Kubeflow's cache depends on both.
    """

    @dsl.pipeline(
        name="cxr-training",
        description="Train, judge and register pneumonia classifiers.",
        pipeline_config=graph.pipeline_config(),
    )
    def training(source: str = graph.source, data_version: str = graph.data_version) -> None:
        with dsl.ExitHandler(graph.outcome_task(), name="steps"):
            data = graph.task("fetch", {}, source=source, data_version=data_version).outputs["data"]
            results = graph.image_results("validate_shard", {"data": data})
            manifest = graph.task("validate", {"data": data, **results}).outputs["manifest"]
            splits = graph.task("resplit", {"manifest": manifest}).outputs["splits"]
            if graph.models:
                split_images = {"data": data, "splits": splits}
                features = graph.image_results("reference_shard", split_images)
                reference = graph.task("reference", {**split_images, **features}).outputs["reference"]
            prepared = {
                recipe: graph.prepared_images({"data": data, "manifest": manifest}, recipe) for recipe in graph.recipes
            }
            models, evaluations = {}, {}
            for name, recipe in graph.classifiers.items():
                images = {"manifest": manifest, "splits": splits, "prepared": prepared[recipe]}
                train = graph.task(
                    "train", images, model=name, data_version=data_version, checkpoints=graph.checkpoint_folder()
                )
                graph.mount_checkpoints(train, name)
                models[name] = train.outputs["trained"]
                evaluation_inputs = {"data": data, **images, "trained": models[name]}
                evaluations[name] = graph.task("evaluate", evaluation_inputs, model=name).outputs["evaluation"]
            if graph.models:
                results = {
                    "data": data,
                    "models": {name: models[name] for name in graph.models},
                    "evaluations": {name: evaluations[name] for name in graph.models},
                }
                ensemble = graph.task("ensemble", results).outputs["ensemble"]
                graph.task("register", {**results, "ensemble": ensemble, "splits": splits, "reference": reference})
            detectors, detector_evaluations = {}, {}
            for name, recipe in graph.detectors.items():
                images = {"data": data, "manifest": manifest, "splits": splits, "prepared": prepared[recipe]}
                train = graph.task(
                    "train_regions",
                    images,
                    model=name,
                    data_version=data_version,
                    checkpoints=graph.checkpoint_folder(),
                )
                graph.mount_checkpoints(train, name)
                detectors[name] = train.outputs["trained"]
                evaluation_inputs = {
                    **images,
                    "trained": detectors[name],
                    "classifier": models[graph.compared],
                    "classifier_evaluation": evaluations[graph.compared],
                }
                detector_evaluations[name] = graph.task("evaluate_regions", evaluation_inputs, model=name).outputs[
                    "evaluation"
                ]
            if graph.detectors:
                graph.task(
                    "register_regions", {"models": detectors, "evaluations": detector_evaluations, "splits": splits}
                )

    return training
