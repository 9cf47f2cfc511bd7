"""Figures of a search are drawn for every kind of parameter and outcome, the same bytes each time."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from cxr.plots.search import history, slices
from cxr.plots.style import PURPLE, Caption, save
from cxr.tuning.space import Choices, Range, Space

CAPTION = Caption("three_block", "kermany", "grouped split", False)
SPACE: Space = {
    "learning_rate": Range(1e-4, 1e-2, log=True),
    "optimizer": Choices(("adam", "nadam", "rmsprop")),
    "batch_normalisation": Choices((True, False, None)),
    "unfrozen_layers": Range(1, 20),
}


def trials(count: int = 24) -> pd.DataFrame:
    generator = np.random.default_rng(0)
    states = np.array(["complete", "complete", "pruned", "complete", "failed", "complete", "killed"])
    table = pd.DataFrame(
        {
            "trial": np.arange(count),
            "state": states[np.arange(count) % len(states)],
            "value": generator.uniform(0.8, 0.95, count),
            "learning_rate": 10 ** generator.uniform(-4, -2, count),
            "optimizer": generator.choice(["adam", "nadam"], count),
            "batch_normalisation": [(True, False, None)[number % 3] for number in range(count)],
            "unfrozen_layers": generator.integers(1, 20, count),
        }
    )
    table.loc[table["state"].isin(["failed", "killed"]), "value"] = np.nan
    return table


def pixels(path: Path) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize("monitor", ["auroc", "loss"])
@pytest.mark.parametrize("count", [1, 24])
def test_figures_are_readable_and_the_same_each_time(tmp_path: Path, monitor: str, count: int) -> None:
    table = trials(count)
    for name, draw in (
        ("history", lambda: history(table, monitor, CAPTION)),
        ("parameters", lambda: slices(table, SPACE, monitor, CAPTION)),
    ):
        for copy in ("a", "b"):
            save(draw(), tmp_path / f"{name}-{copy}.png")
        assert (tmp_path / f"{name}-a.png").read_bytes() == (tmp_path / f"{name}-b.png").read_bytes()
        picture = pixels(tmp_path / f"{name}-a.png")
        assert min(picture.shape[:2]) >= 750
        assert picture.std() > 10


def test_best_value_is_marked_where_it_is() -> None:
    table = trials()
    complete = table[table["state"] == "complete"].set_index("trial")["value"]
    for monitor, best in (("auroc", complete.idxmax()), ("loss", complete.idxmin())):
        axes = history(table, monitor, CAPTION).axes[0]
        assert f"best: {complete[best]:.4f} in trial {best}" in axes.get_legend_handles_labels()[1]
        rates = slices(table, SPACE, monitor, CAPTION).axes[0]
        ring = rates.collections[rates.get_legend_handles_labels()[1].index("best")]
        assert ring.get_offsets()[0].tolist() == [table["learning_rate"][best], complete[best]]


def test_a_search_without_a_complete_trial_is_drawn_too(tmp_path: Path) -> None:
    table = trials()
    table = table[table["state"] != "complete"]
    save(history(table, "auroc", CAPTION), tmp_path / "history.png")
    save(slices(table, SPACE, "auroc", CAPTION), tmp_path / "parameters.png")


def test_phantoms_are_marked(tmp_path: Path) -> None:
    marked = Caption("three_block", "phantom", "grouped split", True)
    colour = np.array([int(PURPLE[place : place + 2], 16) for place in (5, 3, 1)])
    found = {}
    for name, caption in (("plain", CAPTION), ("marked", marked)):
        save(slices(trials(), SPACE, "auroc", caption), tmp_path / f"{name}.png")
        found[name] = (pixels(tmp_path / f"{name}.png") == colour).all(axis=2).sum()
    assert found["marked"] > 500 > found["plain"]
