"""Serving: the model with an alias, exchanged without a gap, the log of predictions, and the REST service."""
