"""The only place that speaks to MLflow: training runs, evaluations and the model registry.

Nothing is imported from MLflow before a function is called.
"""

from cxr.tracking.active_run import TrainingRun, close_trial, open_run
from cxr.tracking.connection import ensure_reachable
from cxr.tracking.runs import log_evaluation, send_evaluation

__all__ = ["TrainingRun", "close_trial", "ensure_reachable", "log_evaluation", "open_run", "send_evaluation"]
