"""Training of one network: data, epochs, checkpoints, and evidence of the device."""
