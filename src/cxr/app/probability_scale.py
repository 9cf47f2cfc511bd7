"""The scale from 0 to 100 per cent with the threshold and the probability of one image, as HTML."""

from __future__ import annotations

from html import escape

from cxr.app.texts import format_label, format_percent
from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.models.prediction_sets import UNCERTAIN, PredictionSets
from cxr.plots.style import COLOURS

LABEL_COLOURS = {**COLOURS, UNCERTAIN: "#7B4B94"}
"""Colour of each label. White letters on it can be read."""

STYLE = """<style>
.cxr-verdict { display: inline-block; padding: .15em .7em; border-radius: .4em; color: #fff; font-size: 1.5rem;
  font-weight: 700; letter-spacing: .02em; }
.cxr-verdict small { font-weight: 600; }
.cxr-none { background: #6b6b6b; }
.cxr-scale { position: relative; margin: 2.2rem .2rem 3.4rem; height: 1.5rem; }
.cxr-scale > * { position: absolute; white-space: nowrap; line-height: 1.1; }
.cxr-bar { inset: 0; border-radius: .4rem; overflow: hidden; border: 1px solid currentColor; }
.cxr-side { position: absolute; top: 0; bottom: 0; }
.cxr-image { top: -1.9rem; font-weight: 700; }
.cxr-needle { top: -.55rem; height: 2.6rem; width: 4px; margin-left: -2px; background: currentColor;
  outline: 1px solid rgba(255, 255, 255, .7); border-radius: 2px; }
.cxr-mark { top: 0; height: 1.5rem; border-left: 3px dashed currentColor; margin-left: -1.5px; }
.cxr-threshold { top: 1.75rem; }
.cxr-end { top: 3rem; font-size: .8rem; opacity: .75; }
</style>"""


def verdict_html(label: str | None, probability: float | None) -> str:
    """Write the prediction for one image in large letters.

    Args:
        label: ``"NORMAL"``, ``"PNEUMONIA"`` or ``"UNCERTAIN"``; None without a prediction.
        probability: calibrated, 0 to 1; None without a prediction.

    Returns:
        HTML.
    """
    if label is None or probability is None:
        return '<span class="cxr-verdict cxr-none">No answer</span>'
    return (
        f'<span class="cxr-verdict" style="background:{LABEL_COLOURS[label]}">{escape(format_label(label))}</span>'
        f'<p style="margin:.6rem 0 0"><strong style="font-size:1.5rem">{escape(format_percent(probability))}</strong> '
        "calibrated probability of pneumonia</p>"
    )


def scale_html(probability: float, threshold: float, sets: PredictionSets | None) -> str:
    """Draw the scale of one image. Its sides differ in colour and in pattern.

    Args:
        probability: calibrated probability of the image, 0 to 1.
        threshold: 0 to 1.
        sets: prediction sets of the model: the sides then meet its uncertain range; None if they meet at the threshold.

    Returns:
        HTML with a description for screen readers.
    """
    image_at, threshold_at = 100 * probability, 100 * threshold
    side = "at or above" if probability >= threshold else "below"
    description = (
        f"Scale from 0 to 100 per cent. This film is at {format_percent(probability)}, {side} the threshold "
        f"of {format_percent(threshold)}."
    )
    low, high = (threshold, threshold) if sets is None else sets.uncertain_range
    middle = ""
    if sets is not None:
        description += f" From {format_percent(low)} to {format_percent(high)} films are uncertain."
        middle = (
            f'\n<div class="cxr-side" style="left:{100 * low:.2f}%;width:{100 * (high - low):.2f}%;'
            f'background:{LABEL_COLOURS[UNCERTAIN]}66"></div>'
        )
    plain = f"{COLOURS[NORMAL]}66"
    pattern = f"repeating-linear-gradient(45deg, {COLOURS[PNEUMONIA]}99 0 6px, {COLOURS[PNEUMONIA]}55 6px 12px)"
    return f"""<div class="cxr-scale" role="img" aria-label="{escape(description)}">
<div class="cxr-bar"><div class="cxr-side" style="left:0;width:{100 * low:.2f}%;background:{plain}"></div>{middle}
<div class="cxr-side" style="left:{100 * high:.2f}%;right:0;background:{pattern}"></div></div>
<div class="cxr-mark" style="left:{threshold_at:.2f}%"></div>
<div class="cxr-threshold" style="{_position_style(threshold_at)}">threshold {escape(format_percent(threshold))}</div>
<div class="cxr-needle" style="left:{image_at:.2f}%"></div>
<div class="cxr-image" style="{_position_style(image_at)}">this film {escape(format_percent(probability))}</div>
<div class="cxr-end" style="left:0">0 %: surely none</div>
<div class="cxr-end" style="right:0">100 %: surely pneumonia</div>
</div>"""


def _position_style(position: float) -> str:
    """CSS that keeps a text inside the scale at both ends."""
    return f"left:{position:.2f}%;transform:translateX(-{position:.2f}%)"
