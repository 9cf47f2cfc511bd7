"""Plots of the exploration report, as SVG that takes its text colour from the page (light or dark)."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxr.data.dataset import CLASSES, NORMAL, OFFICIAL_SPLITS, PNEUMONIA, SUBTYPES
from cxr.data.exploration.shortcuts import CAUTION_AUROC

COLOURS: dict[str, str] = {
    NORMAL: "#0072B2",
    PNEUMONIA: "#D55E00",
    "normal": "#0072B2",
    "bacteria": "#D55E00",
    "virus": "#CC79A7",
}
"""Colours of the classes and subtypes (Okabe and Ito), distinct with every kind of colour vision."""

_TEXT_COLOUR = "#010203"
_GREY = "#7f8a96"
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": _TEXT_COLOUR,
    "axes.labelcolor": _TEXT_COLOUR,
    "axes.edgecolor": _GREY,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _TEXT_COLOUR,
    "ytick.color": _TEXT_COLOUR,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}
_MANY_POINTS = 400
_MAX_POINTS = 10_000


def draw_subtype_shares(images: pd.DataFrame) -> str:
    """Draw how many images each subtype has.

    Args:
        images: accepted images.

    Returns:
        Inline SVG.
    """
    counts = images["subtype"].value_counts().reindex(list(SUBTYPES)).fillna(0).astype(int)

    def draw(axes: Axes) -> None:
        names = [name if name == "normal" else f"pneumonia,\n{name}" for name in counts.index]
        bars = axes.barh(names, counts.to_numpy(), color=[COLOURS[name] for name in counts.index], height=0.62)
        texts = [f"{count:,} ({count / max(1, counts.sum()):.0%})" for count in counts]
        axes.bar_label(bars, texts, padding=4)
        axes.set(xlim=(0, max(1, counts.max()) * 1.35), xlabel="images")
        axes.invert_yaxis()

    return _svg(draw, "shares")


def draw_official_splits(images: pd.DataFrame) -> str:
    """Draw the shares of the subtypes in each official split.

    Args:
        images: accepted images.

    Returns:
        Inline SVG, or ``""`` if the folder has no official splits.
    """
    table = pd.crosstab(images["official_split"], images["subtype"])
    names = [name for name in OFFICIAL_SPLITS if name in table.index]
    if not names:
        return ""
    table = table.reindex(index=names, columns=list(SUBTYPES)).fillna(0)

    def draw(axes: Axes) -> None:
        starts = np.zeros(len(names))
        shares = table.div(table.sum(axis=1), axis=0)
        for subtype in SUBTYPES:
            widths = shares[subtype].to_numpy()
            axes.barh(names, widths, left=starts, color=COLOURS[subtype], height=0.62, label=subtype, edgecolor="none")
            for row, (start, width) in enumerate(zip(starts, widths, strict=True)):
                if width > 0.1:
                    share = f"{width:.0%}"
                    axes.text(start + width / 2, row, share, ha="center", va="center", color="white", weight="bold")
            starts += widths
        axes.set_yticks(range(len(names)), [f"{name}\n{int(table.loc[name].to_numpy().sum()):,}" for name in names])
        axes.set(xlim=(0, 1), xticks=[])
        axes.spines[["bottom", "left"]].set_visible(False)
        axes.invert_yaxis()
        axes.legend(ncols=3, loc="upper center", bbox_to_anchor=(0.45, -0.02), handlelength=1, columnspacing=1)

    return _svg(draw, "splits")


def draw_image_sizes(images: pd.DataFrame) -> str:
    """Draw width against height, of some images where there are many.

    Args:
        images: accepted images.

    Returns:
        Inline SVG, or ``""`` if all images have one size.
    """
    if len(images[["width", "height"]].drop_duplicates()) < 2:
        return ""

    def draw(axes: Axes) -> None:
        # One scatter in shuffled order: with one scatter per class, the second class would cover the first.
        mixed = images.sample(min(len(images), _MAX_POINTS), random_state=0)
        axes.scatter(
            mixed["width"],
            mixed["height"],
            s=18 if len(mixed) < _MANY_POINTS else 5,
            c=[COLOURS[label] for label in mixed["label"]],
            alpha=0.6 if len(mixed) < _MANY_POINTS else 0.35,
            linewidths=0,
            rasterized=True,
        )
        axes.set(xlabel="width, pixels", ylabel="height, pixels", xlim=(0, None), ylim=(0, None))
        _legend(axes)

    return _svg(draw, "sizes")


def draw_histogram(images: pd.DataFrame, column: str, label: str, *, scale: float = 1.0) -> str:
    """Draw the distribution of one number in each class.

    Args:
        images: accepted images.
        column: column of the manifest.
        label: name and unit for the axis.
        scale: divisor of the column.

    Returns:
        Inline SVG, or ``""`` if all images have one value.
    """
    values = images[column].astype(float) / scale
    low, high = (float(values.quantile(share)) for share in (0.001, 0.999))
    if not low < high:
        return ""

    def draw(axes: Axes) -> None:
        edges = np.linspace(low, high, 1 + int(np.clip(1.2 * np.sqrt(len(values)), 8, 40)))
        for name in CLASSES:
            of_class = values[images["label"] == name].clip(low, high)
            if len(of_class):
                weights = np.full(len(of_class), 1 / len(of_class))
                style: dict[str, Any] = {"bins": edges, "weights": weights, "color": COLOURS[name]}
                axes.hist(of_class, histtype="stepfilled", alpha=0.25, **style)
                axes.hist(of_class, histtype="step", linewidth=1.6, **style)
        axes.set(xlabel=label, ylabel="share of the class", xlim=(low, high))
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
        _legend(axes)

    return _svg(draw, column)


def draw_images_per_patient(images: pd.DataFrame) -> str:
    """Draw how many images patients have.

    Args:
        images: accepted images.

    Returns:
        Inline SVG.
    """
    max_count = 6

    def draw(axes: Axes) -> None:
        for offset, name in zip((-0.2, 0.2), CLASSES, strict=True):
            counts = images.loc[images["label"] == name, "patient"].value_counts().clip(upper=max_count)
            heights = counts.value_counts().reindex(range(1, max_count + 1)).fillna(0)
            axes.bar(np.arange(1, max_count + 1) + offset, heights.to_numpy(), width=0.38, color=COLOURS[name])
        axes.set_xticks(
            range(1, max_count + 1), [*(str(count) for count in range(1, max_count)), f"{max_count} or\nmore"]
        )
        axes.set(xlabel="images of one patient", ylabel="patients")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        _legend(axes)

    return _svg(draw, "patients")


def draw_shortcut_aurocs(aurocs: pd.Series[float]) -> str:
    """Draw how well facts about the files alone predict the class.

    Args:
        aurocs: result of :func:`cxr.data.exploration.shortcuts.shortcut_aurocs`.

    Returns:
        Inline SVG, or ``""`` if nothing could be measured.
    """
    known = aurocs.dropna()
    if known.empty:
        return ""

    def draw(axes: Axes) -> None:
        rows = list(range(len(known)))
        values = known.to_numpy(np.float64)
        colours = ["#E69F00" if value >= CAUTION_AUROC else "#56B4E9" for value in values]
        axes.hlines(rows, 0.5, values, color=colours, linewidth=2.5)
        axes.scatter(values, rows, c=colours, s=46, zorder=3, linewidths=0)
        for row, value in zip(rows, values, strict=True):
            axes.text(max(float(value), 0.5) + 0.02, row, f"{value:.2f}", va="center")
        axes.axvline(0.5, color=_GREY, linewidth=1)
        axes.axvline(CAUTION_AUROC, color=_GREY, linewidth=1, linestyle=(0, (3, 3)))
        axes.set_yticks(rows, list(known.index))
        axes.set(xlim=(min(0.45, values.min() - 0.03), 1.06), xlabel="AUROC (0.5 is chance)")
        axes.spines["left"].set_visible(False)
        axes.tick_params(left=False)
        axes.invert_yaxis()

    return _svg(draw, "shortcuts")


def _legend(axes: Axes) -> None:
    """Name the classes above the plot, each with a patch in its colour."""
    handles = [mpl.patches.Patch(color=COLOURS[name], label=name) for name in CLASSES]
    axes.legend(handles=handles, ncols=2, loc="lower left", bbox_to_anchor=(0, 1), handlelength=1, borderpad=0)


def _svg(draw: Callable[[Axes], None], name: str) -> str:
    """Draw on new axes and give the SVG; its text takes the colour of the page."""
    style: Any = _STYLE | {"svg.hashsalt": name}
    with mpl.rc_context(style):
        figure = Figure(figsize=(3.8, 2.7), layout="constrained", dpi=160)
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :].replace(_TEXT_COLOUR, "currentColor")
    # Several drawings share a page, in which identifiers must be unique.
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", svg)
    return re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
