"""Evaluation of models: metrics, calibration, operating point, bootstrap, comparison, ensemble, shortcut checks."""
