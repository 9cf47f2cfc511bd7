"""Where a model version comes from, and how to reproduce it."""
