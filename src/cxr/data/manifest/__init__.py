"""The manifest: one row per file of a data folder."""
