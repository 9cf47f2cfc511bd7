"""All plots of the project except those of drift and of the data report, and their common style."""
