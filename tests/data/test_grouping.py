"""Groups of items, and of patients that share an image."""

from __future__ import annotations

from cxr.data.grouping import connect_pairs


def test_connected_pairs_form_chains_that_are_named_after_their_smallest_item() -> None:
    assert connect_pairs(7, [(5, 4), (1, 5), (2, 3)]).tolist() == [0, 1, 2, 2, 1, 1, 6]
    assert connect_pairs(3, []).tolist() == [0, 1, 2]
    assert connect_pairs(0, []).tolist() == []
