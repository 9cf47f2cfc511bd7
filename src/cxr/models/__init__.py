"""The networks by name, their shared blocks, pretrained weights, the model's metadata and the Keras backend."""
