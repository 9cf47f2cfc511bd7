"""The table of networks with pretrained weights: backbone, scaling of the input, and head.

A new network of Keras Applications is one row here. This module does not import Keras, so that steps can check names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Head:
    """Layers between a backbone and the probability of pneumonia.

    Attributes:
        pooling: how the feature map becomes a vector: ``"flatten"``, or ``"average"`` over height and width.
        units: outputs of the dense layers, in order.
        dropout: share of units dropped after each dense layer, in the source.
    """

    pooling: Literal["flatten", "average"]
    units: tuple[int, ...]
    dropout: float


@dataclass(frozen=True)
class PretrainedNetwork:
    """A network of Keras Applications with a head, and the input that its published weights were trained on.

    Attributes:
        backbone: its name in ``keras.applications``.
        head: layers above the backbone.
        scale: factor of an input in [0, 1], for all channels or for each.
        offset: what is added after that, for all channels or for each. Channels are in the order that the weights
            expect. A radiograph is grey, so its channels are equal and their order needs no change.
    """

    backbone: str
    head: Head
    scale: float | tuple[float, ...]
    offset: float | tuple[float, ...] = 0.0


S3_HEAD = Head("flatten", (128, 256, 256), dropout=0.2)
S4_HEAD = Head("average", (1024, 512), dropout=0.0)

_CAFFE_OFFSET = (-103.939, -116.779, -123.68)
"""Negative channel means of ImageNet in [0, 255], as the weights of VGG16 and ResNet50 expect them."""

PRETRAINED_NETWORKS: Mapping[str, PretrainedNetwork] = {
    # S3, for 300x300x3: He et al. 2016, arXiv:1603.05027. 49,878,401 parameters.
    "resnet50v2": PretrainedNetwork("ResNet50V2", S3_HEAD, scale=2.0, offset=-1.0),
    # S4, for 224x224x3: Simonyan and Zisserman 2014, arXiv:1409.1556.
    "vgg16": PretrainedNetwork("VGG16", S4_HEAD, scale=255.0, offset=_CAFFE_OFFSET),
    # S4, for 224x224x3: He et al. 2015, arXiv:1512.03385.
    "resnet50": PretrainedNetwork("ResNet50", S4_HEAD, scale=255.0, offset=_CAFFE_OFFSET),
    # No source. The network of many published chest classifiers: Huang et al. 2016, arXiv:1608.06993.
    "densenet121": PretrainedNetwork(
        "DenseNet121",
        S4_HEAD,
        scale=(1 / 0.229, 1 / 0.224, 1 / 0.225),
        offset=(-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225),
    ),
    # No source: Tan and Le 2021, arXiv:2104.00298.
    "efficientnetv2b0": PretrainedNetwork("EfficientNetV2B0", S4_HEAD, scale=255.0),
    # No source. The lightest: Sandler et al. 2018, arXiv:1801.04381.
    "mobilenetv2": PretrainedNetwork("MobileNetV2", S4_HEAD, scale=2.0, offset=-1.0),
}
"""Name of the network to what it is made of."""
