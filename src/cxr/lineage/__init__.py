"""Where a model version comes from, and how to make it again."""
