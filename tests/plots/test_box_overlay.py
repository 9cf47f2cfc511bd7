"""The boxes of a detector over an image: where they are, scored, and never those of phantoms without saying so."""

from __future__ import annotations

import numpy as np
import pytest

from cxr.plots.box_overlay import PHANTOM_STRIP, draw_boxes
from cxr.regions.scoring import ScoredBox

ORANGE = (0xE6, 0x9F, 0x00)
SIDE = 1024


@pytest.mark.parametrize(("height", "width"), [(300, 240), (2500, 2000), (500, 1500)])
def test_a_box_is_drawn_where_it_is_whatever_the_size_of_the_original(height, width):
    box = ScoredBox(0.5 * width, 0.4 * height, 0.25 * width, 0.3 * height, 0.71)
    image = np.full((height, width), 90, np.uint8)
    drawn = draw_boxes(image, width, [box], side=SIDE, phantom=False)
    assert max(drawn.shape[:2]) == SIDE
    rows, columns = np.nonzero((drawn == ORANGE).all(axis=-1))
    is_inside = rows > 0.45 * drawn.shape[0]  # below the score, which has the same colour
    scale = drawn.shape[1] / width
    assert columns[is_inside].min() == pytest.approx(scale * box.x, abs=6)
    assert columns[is_inside].max() == pytest.approx(scale * (box.x + box.width), abs=6)
    assert rows.max() == pytest.approx(scale * (box.y + box.height), abs=6)
    assert len(np.unique(drawn[rows.min() : round(scale * box.y), :])) > 2, "the score stands at the box"


def test_a_box_at_the_edge_keeps_its_score_inside_the_image():
    image = np.full((400, 300), 90, np.uint8)
    for box in (ScoredBox(0, 0, 60, 50, 0.5), ScoredBox(260, 350, 40, 50, 0.5)):
        drawn = draw_boxes(image, 300, [box], side=SIDE, phantom=False)
        label = (drawn == ORANGE).all(axis=-1).sum()
        middle = draw_boxes(image, 300, [ScoredBox(100, 100, box.width, box.height, 0.5)], side=SIDE, phantom=False)
        assert label > 0.75 * (middle == ORANGE).all(axis=-1).sum()


def test_phantoms_are_named_in_the_image_itself():
    image = np.full((400, 300), 90, np.uint8)
    plain, named = (draw_boxes(image, 300, [], side=SIDE, phantom=phantom) for phantom in (False, True))
    assert named.shape[0] > plain.shape[0] and (named[: plain.shape[0]] == plain).all()
    assert "drawn phantoms" in PHANTOM_STRIP
    assert (named[plain.shape[0] :] == ORANGE).all(axis=-1).mean() > 0.5
