"""The model card: what a version is for, how it was judged and what is not known, for readers."""
