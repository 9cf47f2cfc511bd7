"""The only place that speaks to MLflow: training runs, evaluations and the model registry.

Nothing is imported from MLflow before a function is called.
"""

from cxr.tracking.runs import TrainingRun, close_trial, log_evaluation, open_run

__all__ = ["TrainingRun", "close_trial", "log_evaluation", "open_run"]
