"""The page of results: measures of all models, compared with published results."""
