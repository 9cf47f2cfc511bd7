"""A network split where its frozen part ends learns the same as the whole network, from activations computed once."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from cxr.images.recipes import recipe_named
from cxr.models.networks import build_network
from cxr.models.pretrained_networks import PRETRAINED_NETWORKS
from cxr.training.batches import Batches
from cxr.training.classification import ClassificationTask
from cxr.training.device import make_deterministic
from cxr.training.frozen_activations import store_activations
from cxr.training.frozen_split import split_frozen_part
from cxr.training.loop import fit
from cxr.training.phases import TrainingPhase
from support.short_backbone import CHANNELS, short_backbone
from support.sweeps import exhaustive
from support.training_settings import training_plan

RECIPE = recipe_named("s4_resize", size=48)


def batches(count, *, shuffle=False, seed=2, augmentation=None):
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 120, (count, 48, 48, 1), dtype=np.uint8)
    labels = np.arange(count) % 2
    images[labels == 1, 10:26, 10:26] += 60
    return Batches(
        images,
        np.arange(count),
        labels,
        RECIPE,
        batch_size=8,
        shuffle=shuffle,
        balance="none",
        mixup=0.0,
        seed=seed,
        augmentation=augmentation,
    )


def network_with_frozen_layers(unfrozen, architecture="mobilenetv2"):
    make_deterministic(3)
    network = build_network(architecture, RECIPE.input_shape, dropout=0.3)
    TrainingPhase("", training_plan("adam", 1e-3, 1), unfrozen).freeze(network)
    return network


@pytest.fixture
def short_mobilenet():
    with short_backbone():
        yield


@pytest.mark.usefixtures("short_mobilenet")
@pytest.mark.parametrize("unfrozen", [6, *exhaustive(0)])
def test_a_split_network_trains_with_the_losses_of_the_whole(tmp_path, unfrozen):
    plan = training_plan("adam", 1e-3, epochs=3, seed=5)
    whole = network_with_frozen_layers(unfrozen)
    expected = fit(whole, batches(24, shuffle=True), ClassificationTask(batches(16, seed=9)), plan)

    network = network_with_frozen_layers(unfrozen)
    parts = split_frozen_part(network)
    train = store_activations(parts.frozen, batches(24, shuffle=True), 2, tmp_path / "train")
    validation = store_activations(parts.frozen, batches(16, seed=9), 0, tmp_path / "validation")
    result = fit(parts.trained, train, ClassificationTask(validation), plan, random_layers=network.layers)

    for expected_row, row in zip(expected.history, result.history, strict=True):
        assert expected_row["loss"] == pytest.approx(row["loss"], abs=1e-5)
        assert expected_row["val_loss"] == pytest.approx(row["val_loss"], abs=1e-5)
    for expected_weights, weights in zip(whole.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_allclose(expected_weights, weights, atol=1e-4)
    assert expected.history[0]["val_loss"] != expected.history[-1]["val_loss"]


@pytest.mark.parametrize(
    "architecture", ["efficientnet_lite0", *exhaustive(*sorted({*PRETRAINED_NETWORKS} - {"efficientnet_lite0"}))]
)
def test_nothing_that_training_changes_is_in_the_frozen_part(architecture):
    network = network_with_frozen_layers(5, architecture)
    parts = split_frozen_part(network)
    assert not parts.frozen.trainable_weights
    changed = {id(weight) for weight in network.trainable_weights}
    assert changed == {id(weight) for weight in parts.trained.trainable_weights}


@pytest.mark.usefixtures("short_mobilenet")
def test_pooling_above_a_frozen_backbone_is_stored_instead_of_the_feature_map():
    parts = split_frozen_part(network_with_frozen_layers(0))
    assert parts.frozen.output_shape == (None, CHANNELS)


def test_a_split_inside_a_residual_block_keeps_its_shortcut():
    """Five layers from the end of ResNet50 is inside a block: its shortcut crosses the split."""
    network = network_with_frozen_layers(5, "resnet50")
    parts = split_frozen_part(network)
    assert len(parts.frozen.outputs) == 2
    images = np.random.default_rng(1).random((2, 48, 48, 3), dtype=np.float32)
    joined = parts.trained(parts.frozen(images, training=False), training=False)
    np.testing.assert_allclose(joined, network(images, training=False), atol=1e-6)


def test_a_network_without_frozen_layers_is_not_split():
    assert split_frozen_part(network_with_frozen_layers(None)) is None
    assert split_frozen_part(build_network("three_block", (48, 48, 1))) is None


@pytest.mark.usefixtures("short_mobilenet")
def test_a_saved_network_is_the_same_after_a_split(tmp_path):
    network = network_with_frozen_layers(0)
    split_frozen_part(network)
    network.save(tmp_path / "model.keras")
    images = np.random.default_rng(1).random((2, 48, 48, 3), dtype=np.float32)
    reloaded = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(reloaded(images, training=False), network(images, training=False), atol=1e-6)


@pytest.mark.usefixtures("short_mobilenet")
def test_every_epoch_shows_a_view_of_each_image_and_activations_are_computed_once(tmp_path):
    from cxr.training.augmentation import Augmentation

    parts = split_frozen_part(network_with_frozen_layers(0))
    images = batches(12, augmentation=Augmentation(horizontal_flip=True, rotation=20))
    stored = store_activations(parts.frozen, images, 3, tmp_path / "train")
    assert stored.activations[0].shape == (4, 12, CHANNELS)
    written = (tmp_path / "train" / "tensor-0.npy").stat().st_mtime_ns
    store_activations(parts.frozen, images, 3, tmp_path / "train")
    assert (tmp_path / "train" / "tensor-0.npy").stat().st_mtime_ns == written
    shown = []
    for epoch in range(6):
        stored.epoch = epoch
        order = stored.order()
        shown.append(np.concatenate([stored[number][0] for number in range(len(stored))])[np.argsort(order)])
    views = [
        [
            int(np.flatnonzero((stored.activations[0][:, image] == activations[image]).all(axis=-1))[0])
            for image in range(12)
        ]
        for activations in shown
    ]
    assert set(np.ravel(views)) == {0, 1, 2, 3}
    assert views[0] != views[1]
