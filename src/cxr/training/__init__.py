"""Training of one network: data, epochs, checkpoints, and the device."""
