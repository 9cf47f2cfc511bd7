"""The networks by name, their shared blocks, their metadata and the Keras backend."""
