"""Drift: a window of logged predictions compared with training and validation."""
