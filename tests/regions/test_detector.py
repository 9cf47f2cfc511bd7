"""The detector has its outputs on both backbones, learns where a rectangle is, and works on other backends."""

from __future__ import annotations

from importlib.util import find_spec

import keras
import numpy as np
import pytest

from cxr.errors import ParameterError
from cxr.images.recipes import recipe_named, to_network_input
from cxr.models.networks import build_network
from cxr.models.pretrained import backbone_layers
from cxr.models.pretrained_networks import DETECTOR_BACKBONES, PRETRAINED_NETWORKS
from cxr.regions.anchors import make_anchors
from cxr.regions.assignment import assign_batch
from cxr.regions.detector import build_detector
from cxr.regions.losses import detection_losses
from cxr.regions.overlap import intersection_over_union
from cxr.regions.suppression import detect_boxes
from support.detection_targets import target_arrays
from support.other_backend import run_on_backend
from support.short_backbone import short_lite0
from support.sweeps import exhaustive

BACKBONES = ["efficientnet_lite0", *exhaustive(*sorted({*DETECTOR_BACKBONES} - {"efficientnet_lite0"}))]
SIDE = 96
SMALL = {"squeeze_excitation": False, "weights": "none", "channels": 32, "convolutions": 1, "dropout": 0.0}
OTHERS = [
    pytest.param(name, marks=pytest.mark.skipif(find_spec(name) is None, reason=f"{name} is not installed"))
    for name in ("jax", "torch")
    if name != keras.backend.backend()
]

TRAIN = """
import sys, keras, numpy as np
from cxr.images.recipes import recipe_named
from cxr.regions.anchors import make_anchors
from cxr.regions.losses import detection_losses
from cxr.regions.targets import detection_targets
from cxr.training.prepared_input import PreparedInputNetwork
folder = sys.argv[1]
data = dict(np.load(folder + "/data.npz"))
inputs = {name: data.pop(name) for name in ("planes", "matrices")}
detector = keras.saving.load_model(folder + "/detector.keras", compile=False)
anchors = make_anchors(inputs["planes"].shape[1])
recipe = recipe_named("s4_resize", size=inputs["planes"].shape[1])
on_planes = PreparedInputNetwork(detector, recipe, None, lambda batch: detection_targets(batch, anchors))
outputs = on_planes.predict_on_batch(inputs)
losses, targets = detection_losses(focal_balance=0.25, focal_focus=2.0), detection_targets(data, anchors)
values = [float(keras.ops.mean(loss(targets[name], outputs[name]))) for name, loss in losses.items()]
on_planes.compile(keras.optimizers.SGD(1e-3), losses)
steps = [on_planes.train_on_batch(inputs, data, return_dict=True)["loss"] for _ in range(2)]
finite = [np.isfinite(weight).all() for weight in detector.get_weights()]
np.savez(folder + "/outputs.npz", values=values, steps=steps, finite=finite, **outputs)
assert "tensorflow" not in sys.modules
"""


def draw_rectangles(seed: int, number: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Noise with one bright rectangle per image, and the boxes of the rectangles."""
    generator = np.random.default_rng(seed)
    images, boxes = generator.normal(0.3, 0.05, (number, SIDE, SIDE, 1)), []
    for image in images:
        width, height = generator.integers(18, 40, 2)
        left, top = generator.integers(0, SIDE - width), generator.integers(0, SIDE - height)
        image[top : top + height, left : left + width] += 0.5
        boxes.append(np.float32([[left, top, left + width, top + height]]))
    return np.repeat(images, 3, axis=-1).clip(0, 1).astype(np.float32), boxes


def compile_for_test(detector: keras.Model, images: np.ndarray, targets: dict[str, np.ndarray]) -> None:
    """With a momentum of 0.99, the statistics of a new backbone would need hundreds of steps."""
    for layer in detector.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.5
    losses = detection_losses(focal_balance=0.25, focal_focus=2.0)
    detector.compile(keras.optimizers.Adam(3e-3), losses, jit_compile=False)
    # If the variables were created while TensorFlow traces the first step, it would trace the step again.
    detector.optimizer.build(detector.trainable_variables)
    detector.compute_loss(y=targets, y_pred=detector(images, training=False))
    detector.reset_metrics()


@pytest.fixture(scope="module", params=[1], ids=["seed1"])
def training(request) -> tuple[keras.Model, list[float], np.ndarray, list[np.ndarray]]:
    """A detector after 15 steps on eight images, the losses of the steps, the images and their boxes."""
    keras.utils.set_random_seed(request.param)
    images, boxes = draw_rectangles(request.param, 8)
    with short_lite0():
        detector = build_detector("efficientnet_lite0", (SIDE, SIDE, 3), **SMALL)
    targets = target_arrays(make_anchors(SIDE), boxes)
    compile_for_test(detector, images, targets)
    losses = detector.fit(images, targets, batch_size=8, epochs=15, shuffle=False, verbose=0).history["loss"]
    return detector, losses, images, boxes


def test_a_few_steps_lower_the_loss_and_put_the_best_box_on_the_rectangle(training):
    detector, losses, images, boxes = training
    assert losses[-1] < 0.2 * losses[0]
    outputs = {name: np.asarray(output) for name, output in detector(images, training=False).items()}
    detections = detect_boxes(outputs, make_anchors(SIDE), SIDE, min_score=0.1, max_overlap=0.3, max_boxes=5)
    overlaps = [
        intersection_over_union(image.boxes[:1], box)[0, 0] for image, box in zip(detections, boxes, strict=True)
    ]
    assert min(overlaps) > 0.5, overlaps
    assert np.mean(overlaps) > 0.75, overlaps
    # A second box of the same image is far less sure than the one on the rectangle.
    assert all((image.scores[1:] < image.scores[0]).all() for image in detections)


def test_a_batch_without_boxes_trains_and_lowers_the_scores(training):
    detector, _, images, _ = training
    targets = target_arrays(make_anchors(SIDE), [np.zeros((0, 4), np.float32)] * len(images))
    weights = detector.get_weights()
    # By fit as before: the same compiled step.
    losses = detector.fit(images, targets, batch_size=8, epochs=3, shuffle=False, verbose=0).history
    assert all(np.isfinite(values).all() for values in losses.values())
    assert losses["class_logits_loss"][-1] < losses["class_logits_loss"][0]
    assert losses["box_deltas_loss"][-1] == 0
    assert all(np.isfinite(weight).all() for weight in detector.get_weights())
    detector.set_weights(weights)


@pytest.mark.parametrize("squeeze_excitation", [False, True])
@pytest.mark.parametrize("backbone", BACKBONES)
def test_every_anchor_starts_with_one_logit_of_the_prior_probability(backbone, squeeze_excitation):
    keras.utils.set_random_seed(2)
    options = SMALL | {"squeeze_excitation": squeeze_excitation, "convolutions": 2, "dropout": 0.2}
    detector = build_detector(backbone, (SIDE, SIDE, 3), **options)
    images = np.random.default_rng(2).random((2, SIDE, SIDE, 3), dtype=np.float32)
    outputs = {name: np.asarray(output) for name, output in detector(images, training=False).items()}
    anchors = len(make_anchors(SIDE))
    shapes = {name: output.shape for name, output in outputs.items()}
    assert shapes == {"class_logits": (2, anchors), "box_deltas": (2, anchors, 4), "image_logit": (2, 1)}
    assert np.median(1 / (1 + np.exp(-outputs["class_logits"]))) == pytest.approx(0.01, abs=0.005)
    gates = [layer for layer in detector.layers if layer.name.endswith("_squeeze_multiply")]
    assert len(gates) == (3 if squeeze_excitation else 0)
    assert not any(isinstance(layer, keras.Model) for layer in detector.layers)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_levels_of_the_pyramid_have_their_strides(backbone):
    detector = build_detector(backbone, (SIDE, SIDE, 3), **SMALL)
    sides = [detector.get_layer(f"head_p{level}_lateral").input.shape[1] for level in (3, 4, 5)]
    assert sides == [SIDE // 8, SIDE // 16, SIDE // 32]
    first, second = PRETRAINED_NETWORKS[backbone].feature_layers
    names = [layer.name for layer in backbone_layers(detector)]
    for name, stride in ((first, 8), (second, 16)):
        # The layer is the last one with this stride before its features shrink again, not an early one.
        later = {detector.get_layer(other).output.shape[1] for other in names[names.index(name) + 1 :]}
        assert detector.get_layer(name).output.shape[1] == SIDE // stride
        assert SIDE // stride // 2 in later


def test_backbone_is_that_of_the_classifier_with_its_pretrained_weights():
    detector = build_detector("efficientnet_lite0", (SIDE, SIDE, 3), **(SMALL | {"weights": "imagenet"}))
    classifier = build_network("efficientnet_lite0", (SIDE, SIDE, 3), weights="imagenet")
    of_detector, of_classifier = (
        {layer.name: layer.get_weights() for layer in backbone_layers(network)} for network in (detector, classifier)
    )
    assert of_detector.keys() == of_classifier.keys()
    for name, weights in of_classifier.items():
        for expected, weight in zip(weights, of_detector[name], strict=True):
            np.testing.assert_array_equal(weight, expected, err_msg=name)
    scaled = detector.get_layer("scaling")(np.float32([[[[0, 127 / 255, 1]]]]))
    np.testing.assert_allclose(np.asarray(scaled).ravel(), [-127 / 128, 0, 1], atol=1e-6)


def test_input_and_backbone_that_do_not_suit_are_refused_with_every_reason():
    with pytest.raises(ParameterError) as caught:
        build_detector("vgg16", (300, 300, 3), **SMALL)
    assert len(caught.value.problems) == 2
    assert "efficientnet_lite0" in caught.value.problems[0] and "received backbone='vgg16'" in caught.value.problems[0]
    assert "multiple of 32" in caught.value.problems[1] and "for example 288" in caught.value.problems[1]
    with pytest.raises(ParameterError, match="square"):
        build_detector("resnet50v2", (96, 128, 3), **SMALL)
    with pytest.raises(ParameterError, match="three channels"):
        build_detector("resnet50v2", (96, 96, 1), **SMALL)


@pytest.mark.exhaustive  # tests/training/test_backends.py compares classifiers, on the same backbones
@pytest.mark.parametrize("backend", OTHERS)
def test_same_weights_give_the_same_boxes_on_another_backend_and_train_there(backend, training, tmp_path):
    detector, _, images, boxes = training
    anchors, planes = make_anchors(SIDE), np.rint(255 * images[:3, ..., :1]).astype(np.uint8)
    boxes = [*boxes[:2], np.zeros((0, 4), np.float32)]
    unmoved = np.repeat(np.eye(2, 3, dtype=np.float32)[None], 3, axis=0)
    batch = assign_batch(anchors, boxes, most=2)
    np.savez(tmp_path / "data.npz", planes=planes, matrices=unmoved, **batch)
    detector.save(tmp_path / "detector.keras")
    inputs = to_network_input(planes, recipe_named("s4_resize", size=SIDE))
    outputs = {name: np.asarray(output) for name, output in detector(inputs, training=False).items()}
    losses, targets = detection_losses(focal_balance=0.25, focal_focus=2.0), target_arrays(anchors, boxes)
    values = [float(keras.ops.mean(loss(targets[name], outputs[name]))) for name, loss in losses.items()]
    run_on_backend(backend, tmp_path, ["-c", TRAIN, str(tmp_path)])
    others = np.load(tmp_path / "outputs.npz")
    for name, output in outputs.items():
        np.testing.assert_allclose(others[name], output, atol=2e-3, err_msg=name)
    np.testing.assert_allclose(others["values"], values, rtol=1e-2)
    assert others["steps"][1] < others["steps"][0]
    assert others["finite"].all()
