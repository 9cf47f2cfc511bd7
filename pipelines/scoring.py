"""The scoring pipeline on Kubeflow: a registered version predicts many images."""

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
        The pipeline. Its inputs are the address of the images (``s3://bucket/prefix``, or a folder on the volume of
        ``containers.images``) and the alias of the version that predicts.
    """

    @dsl.pipeline(
        name="cxr-scoring",
        description="Predictions of the champion for a folder or an S3 prefix.",
        pipeline_config=graph.pipeline_config(),
    )
    def scoring(images: str, alias: str = "champion") -> None:
        with dsl.ExitHandler(graph.outcome_task(), name="steps"):
            scored = {}
            if graph.shards > 1:
                with graph.each_shard("predict") as shard:
                    part = graph.task("predict", {}, images=images, alias=alias, shard=shard)
                    graph.mount_images(part)
                scored["scored"] = dsl.Collected(part.outputs["predictions"])
            graph.mount_images(graph.task("predict", scored, images=images, alias=alias))

    return scoring
