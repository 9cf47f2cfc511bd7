"""The refusal reference: statistics of training images, which decide which images get no prediction."""
