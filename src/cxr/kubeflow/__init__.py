"""Kubeflow: components, pipelines, runs and schedules, derived from the steps and from ``params.yaml``.

The only package that imports kfp and its API client.
"""

CONTAINERS = "containers"
"""Section of ``params.yaml`` that no step reads: what the steps' containers get on a cluster."""
