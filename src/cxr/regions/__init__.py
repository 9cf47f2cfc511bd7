"""Regions: a detector of opacities, trained on boxes and judged by where it draws them."""
