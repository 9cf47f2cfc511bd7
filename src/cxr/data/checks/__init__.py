"""Checks of a data set: rules, Great Expectations, acceptance and drift of the data."""
