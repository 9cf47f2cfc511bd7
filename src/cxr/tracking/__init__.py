"""The only package that speaks to MLflow: runs, the model registry and webhooks."""
