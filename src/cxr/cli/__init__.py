"""The command line: flags and ``params.yaml`` become a step, on a laptop and inside a container."""
