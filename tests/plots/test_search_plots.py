"""Plots of a search: drawn for every kind of parameter and outcome, and reproducible to the byte."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from cxr.plots.search import plot_parameter_slices, plot_search_history
from cxr.plots.style import PURPLE, Caption, save_png
from cxr.tuning.space import Choices, Range, Space
from support.sweeps import exhaustive

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


@pytest.mark.parametrize(("monitor", "count"), [("auroc", 24), ("loss", 1), *exhaustive(("auroc", 1), ("loss", 24))])
def test_figures_are_readable_and_the_same_each_time(tmp_path: Path, monitor: str, count: int) -> None:
    table = trials(count)
    for name, draw in (
        ("history", lambda: plot_search_history(table, monitor, CAPTION)),
        ("parameters", lambda: plot_parameter_slices(table, SPACE, monitor, CAPTION)),
    ):
        for copy in ("a", "b"):
            save_png(draw(), tmp_path / f"{name}-{copy}.png")
        assert (tmp_path / f"{name}-a.png").read_bytes() == (tmp_path / f"{name}-b.png").read_bytes()
        image = pixels(tmp_path / f"{name}-a.png")
        assert min(image.shape[:2]) >= 750
        assert image.std() > 10


def test_the_best_value_is_marked_at_its_position() -> None:
    table = trials()
    complete = table[table["state"] == "complete"].set_index("trial")["value"]
    for monitor, best in (("auroc", complete.idxmax()), ("loss", complete.idxmin())):
        axes = plot_search_history(table, monitor, CAPTION).axes[0]
        assert f"best: {complete[best]:.4f} in trial {best}" in axes.get_legend_handles_labels()[1]
        rates = plot_parameter_slices(table, SPACE, monitor, CAPTION).axes[0]
        ring = rates.collections[rates.get_legend_handles_labels()[1].index("best")]
        assert ring.get_offsets()[0].tolist() == [table["learning_rate"][best], complete[best]]


def test_a_search_without_a_complete_trial_is_drawn(tmp_path: Path) -> None:
    table = trials()
    table = table[table["state"] != "complete"]
    save_png(plot_search_history(table, "auroc", CAPTION), tmp_path / "history.png")
    save_png(plot_parameter_slices(table, SPACE, "auroc", CAPTION), tmp_path / "parameters.png")


def test_phantoms_are_marked(tmp_path: Path) -> None:
    marked = Caption("three_block", "phantom", "grouped split", True)
    colour = np.array([int(PURPLE[start : start + 2], 16) for start in (5, 3, 1)])
    badge_pixels = {}
    for name, caption in (("plain", CAPTION), ("marked", marked)):
        save_png(plot_parameter_slices(trials(), SPACE, "auroc", caption), tmp_path / f"{name}.png")
        badge_pixels[name] = (pixels(tmp_path / f"{name}.png") == colour).all(axis=2).sum()
    assert badge_pixels["marked"] > 500 > badge_pixels["plain"]
