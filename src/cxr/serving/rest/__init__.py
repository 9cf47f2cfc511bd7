"""The REST service: one supervisor, several workers on one socket, each with its own model."""
