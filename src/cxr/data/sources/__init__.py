"""Data sources, one file per kind: local paths, Kaggle, object storage, DVC remotes and the built-in phantoms."""
