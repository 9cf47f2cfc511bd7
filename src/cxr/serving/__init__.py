"""Serving: the model that has an alias, ready to answer and replaced without a gap; the REST service."""
