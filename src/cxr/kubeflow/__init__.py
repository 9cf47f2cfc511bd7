"""Kubeflow: components, pipelines, runs and schedules, derived from the steps and from ``params.yaml``.

Only this package imports kfp and its API client.
"""

CONTAINERS_SECTION = "containers"
"""Section of ``params.yaml`` that no step reads: images, resources and secrets of the containers on a cluster."""
