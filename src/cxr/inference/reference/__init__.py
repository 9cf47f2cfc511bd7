"""The refusal reference: what training images look like, so that other images get no answer."""
