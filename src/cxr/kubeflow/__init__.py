"""Kubeflow Pipelines: the only package that imports kfp and its API client."""
