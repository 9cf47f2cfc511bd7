"""Data sources: folders, archives, Kaggle, object storage and DVC remotes."""
