"""A network cut where its frozen part ends learns what the whole network would, from activations computed once."""

from __future__ import annotations

import keras
import numpy as np
import pytest

from cxr.images.recipes import recipe_named
from cxr.models.networks import PRETRAINED, build
from cxr.training.batches import Batches
from cxr.training.device import make_deterministic
from cxr.training.frozen_activations import store
from cxr.training.frozen_split import cut
from cxr.training.loop import Plan, fit
from cxr.training.session import Phase
from support.short_backbone import short_backbone

RECIPE = recipe_named("s4_resize", size=48)


def batches(count, *, shuffle=False, seed=2, augmentation=None):
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 120, (count, 48, 48, 1), dtype=np.uint8)
    labels = np.arange(count) % 2
    images[labels == 1, 10:26, 10:26] += 60
    return Batches(
        images, np.arange(count), labels, RECIPE, batch_size=8, shuffle=shuffle, seed=seed, augmentation=augmentation
    )


def frozen(unfrozen, architecture="mobilenetv2"):
    make_deterministic(3)
    network = build(architecture, RECIPE.input_shape, dropout=0.3)
    Phase("", Plan("adam", 1e-3, 1), unfrozen).freeze(network)
    return network


@pytest.fixture
def short_mobilenet():
    with short_backbone():
        yield


@pytest.mark.usefixtures("short_mobilenet")
@pytest.mark.parametrize("unfrozen", [0, 6])
def test_cut_network_trains_with_the_loss_of_the_whole(tmp_path, unfrozen):
    plan = Plan("adam", 1e-3, epochs=3, seed=5)
    whole = frozen(unfrozen)
    expected = fit(whole, batches(24, shuffle=True), batches(16, seed=9), plan)

    network = frozen(unfrozen)
    parts = cut(network)
    train = store(parts.frozen, batches(24, shuffle=True), 2, tmp_path / "train")
    validation = store(parts.frozen, batches(16, seed=9), 0, tmp_path / "validation")
    found = fit(parts.rest, train, validation, plan, random_layers=network.layers)

    for one, other in zip(expected.history, found.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=1e-5)
        assert one["val_loss"] == pytest.approx(other["val_loss"], abs=1e-5)
    for one, other in zip(whole.get_weights(), network.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)
    assert expected.history[0]["val_loss"] != expected.history[-1]["val_loss"]


@pytest.mark.parametrize("architecture", sorted(PRETRAINED))
def test_nothing_that_training_changes_is_in_the_frozen_part(architecture):
    network = frozen(5, architecture)
    parts = cut(network)
    assert not parts.frozen.trainable_weights
    changed = {id(weight) for weight in network.trainable_weights}
    assert changed == {id(weight) for weight in parts.rest.trainable_weights}


def test_pooling_above_a_frozen_backbone_is_stored_instead_of_the_feature_map():
    parts = cut(frozen(0))
    assert parts.frozen.output_shape == (None, 1280)


def test_cut_through_a_residual_block_keeps_its_shortcut():
    """Five layers from the end of ResNet50 is inside a block: its shortcut crosses the cut."""
    network = frozen(5, "resnet50")
    parts = cut(network)
    assert len(parts.frozen.outputs) == 2
    images = np.random.default_rng(1).random((2, 48, 48, 3), dtype=np.float32)
    joined = parts.rest(parts.frozen(images, training=False), training=False)
    np.testing.assert_allclose(joined, network(images, training=False), atol=1e-6)


def test_network_without_frozen_layers_is_not_cut():
    assert cut(frozen(None)) is None
    assert cut(build("three_block", (48, 48, 1))) is None


def test_saved_network_is_the_same_after_a_cut(tmp_path):
    network = frozen(0)
    cut(network)
    network.save(tmp_path / "model.keras")
    images = np.random.default_rng(1).random((2, 48, 48, 3), dtype=np.float32)
    again = keras.saving.load_model(tmp_path / "model.keras", compile=False)
    np.testing.assert_allclose(again(images, training=False), network(images, training=False), atol=1e-6)


def test_every_epoch_shows_a_view_of_each_image_and_activations_are_computed_once(tmp_path):
    from cxr.training.augmentation import Augmentation

    parts = cut(frozen(0))
    images = batches(12, augmentation=Augmentation(horizontal_flip=True, rotation=20))
    stored = store(parts.frozen, images, 3, tmp_path / "train")
    assert stored.stored[0].shape == (4, 12, 1280)
    written = (tmp_path / "train" / "tensor-0.npy").stat().st_mtime_ns
    store(parts.frozen, images, 3, tmp_path / "train")
    assert (tmp_path / "train" / "tensor-0.npy").stat().st_mtime_ns == written
    seen = []
    for epoch in range(6):
        stored.epoch = epoch
        order = stored.order()
        seen.append(np.concatenate([stored[number][0] for number in range(len(stored))])[np.argsort(order)])
    views = [
        [int(np.flatnonzero((stored.stored[0][:, image] == one[image]).all(axis=-1))[0]) for image in range(12)]
        for one in seen
    ]
    assert set(np.ravel(views)) == {0, 1, 2, 3}
    assert views[0] != views[1]
