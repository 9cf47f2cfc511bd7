"""The model card of a version: a text for readers."""
