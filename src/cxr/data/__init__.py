"""The data set: sources, manifest, checks, splits, exploration and the built-in phantoms."""
