"""The scoring pipeline on Kubeflow: a registered version answers for many images."""

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
        The pipeline. Its inputs are where the images are (``s3://bucket/prefix``, or a folder on the volume of
        ``containers.images``) and the alias of the version that answers.
    """

    @dsl.pipeline(name="cxr-scoring", description="Predictions of the champion for a folder or an S3 prefix.")
    def scoring(images: str, alias: str = "champion") -> None:
        with dsl.ExitHandler(graph.outcome(), name="steps"):
            graph.mount_images(graph.task("predict", {}, images=images, alias=alias))

    return scoring
