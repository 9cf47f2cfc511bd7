"""The results page: kept figures of all models, compared with published ones."""
