"""A trained model as one file for other runtimes, compared with the model itself before it appears."""
