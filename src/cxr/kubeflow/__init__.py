"""Kubeflow: components, pipelines and schedules, derived from the steps and from ``params.yaml``."""
