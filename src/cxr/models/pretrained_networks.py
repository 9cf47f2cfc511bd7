"""The table of networks with pretrained weights: backbone, scaling of the input, and head.

A new network of Keras Applications, or another size of EfficientNet-Lite, is one row here. This module does not import
Keras, so that steps can check names.
"""

from __future__ import annotations

from collections.abc import Mapping

from cxr.models import efficientnet_lite0, efficientnet_lite1, efficientnet_lite2
from cxr.models.pretrained_network import Head, PretrainedNetwork

S3_HEAD = Head("flatten", (128, 256, 256), dropout=0.2)
S4_HEAD = Head("average", (1024, 512), dropout=0.0)

_CAFFE_OFFSET = (-103.939, -116.779, -123.68)
"""Negative channel means of ImageNet in [0, 255], as the weights of VGG16 and ResNet50 expect them."""

PRETRAINED_NETWORKS: Mapping[str, PretrainedNetwork] = {
    # S3, for 300x300x3: He et al. 2016, arXiv:1603.05027. 49,878,401 parameters.
    "resnet50v2": PretrainedNetwork(
        "ResNet50V2",
        S3_HEAD,
        scale=2.0,
        offset=-1.0,
        feature_layers=("conv3_block4_preact_relu", "conv4_block6_preact_relu"),
    ),
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
    # No source. Their weights are installed; Tan and Le 2019, arXiv:1905.11946.
    "efficientnet_lite0": efficientnet_lite0.NETWORK,
    "efficientnet_lite1": efficientnet_lite1.NETWORK,
    "efficientnet_lite2": efficientnet_lite2.NETWORK,
}
"""Name of the network to what it is made of."""

DETECTOR_BACKBONES = tuple(name for name, network in PRETRAINED_NETWORKS.items() if network.feature_layers)
"""Names of the networks on whose backbones a detector of regions can be built."""
