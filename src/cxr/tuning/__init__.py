"""Search for parameter values on validation."""
