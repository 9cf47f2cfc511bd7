"""From an image's bytes to an answer: predictor, refusal reference, explanation and batch scoring."""
