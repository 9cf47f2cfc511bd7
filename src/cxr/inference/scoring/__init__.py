"""Batch scoring: one row per file, in little memory, resumable after a kill."""
