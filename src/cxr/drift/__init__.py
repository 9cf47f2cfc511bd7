"""Drift: compare a window of logged predictions with the training of their version."""
