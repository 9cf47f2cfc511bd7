"""Train, judge and ship pneumonia classifiers for chest radiographs, reproducibly."""

__version__ = "0.1.0"
