"""Judging a model: validation chooses temperature and threshold; test is read once, to report."""
