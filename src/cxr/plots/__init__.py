"""All figures that the project draws, in one style."""
