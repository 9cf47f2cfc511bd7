"""From the bytes of an image to a prediction: predictor, refusals, explanation and batch scoring."""
