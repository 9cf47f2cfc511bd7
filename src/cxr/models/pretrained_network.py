"""What a network with pretrained weights is made of: backbone, scaling, head, and the package of the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAIN_PINS = "run.txt"
"""File of ``requirements/`` whose packages every installation has."""


@dataclass(frozen=True)
class Head:
    """Layers between a backbone and the probability of pneumonia.

    Attributes:
        pooling: how the feature map becomes a vector: ``"flatten"``, or ``"average"`` over height and width.
        units: outputs of the dense layers, in order.
        dropout: share of units dropped after each dense layer, or of the pooled vector where there is none, in the
            source.
    """

    pooling: Literal["flatten", "average"]
    units: tuple[int, ...]
    dropout: float


@dataclass(frozen=True)
class WeightsPackage:
    """An installed package that holds the ImageNet weights of a network, in a file of torch.

    Attributes:
        requirement: name and version of the package, ``"name==version"``.
        file: path of the file inside the package.
        sha256: hexadecimal digest of the file.
        pins: file of ``requirements/`` that pins the package.
    """

    requirement: str
    file: str
    sha256: str
    pins: str


@dataclass(frozen=True)
class PretrainedNetwork:
    """A backbone with a head, and the input that its published weights were trained on.

    Attributes:
        backbone: its name in ``keras.applications``, or in :data:`cxr.models.efficientnet_lite.COEFFICIENTS`.
        head: layers above the backbone.
        scale: factor of an input in [0, 1], for all channels or for each.
        offset: what is added after that, for all channels or for each. Channels are in the order that the weights
            expect. A radiograph is grey, so its channels are equal and their order needs no change.
        package: what ``weights: imagenet`` reads; None for Keras's own download.
        feature_layers: names of the layers whose outputs, with strides 8 and 16, a detector uses beside the last
            feature map, which has stride 32; None if no detector is built on this backbone.
    """

    backbone: str
    head: Head
    scale: float | tuple[float, ...]
    offset: float | tuple[float, ...] = 0.0
    package: WeightsPackage | None = None
    feature_layers: tuple[str, str] | None = None
