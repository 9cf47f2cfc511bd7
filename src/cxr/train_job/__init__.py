"""One training on several nodes of a Kubernetes cluster: a TrainJob of the Kubeflow Trainer, made and followed."""
