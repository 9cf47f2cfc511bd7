"""Batch scoring: one row per file, in little memory; a killed run continues where it stopped."""
