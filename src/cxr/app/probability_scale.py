"""The scale from 0 to 100 per cent, with the threshold and the mark of one film."""

from __future__ import annotations

from html import escape

from cxr.app.texts import percent, verdict
from cxr.data.dataset import NORMAL, PNEUMONIA
from cxr.plots.style import COLOURS

STYLE = """<style>
.cxr-verdict { display: inline-block; padding: .15em .7em; border-radius: .4em; color: #fff; font-size: 1.5rem;
  font-weight: 700; letter-spacing: .02em; }
.cxr-verdict small { font-weight: 600; }
.cxr-none { background: #6b6b6b; }
.cxr-scale { position: relative; margin: 2.2rem .2rem 3.4rem; height: 1.5rem; }
.cxr-scale > * { position: absolute; white-space: nowrap; line-height: 1.1; }
.cxr-bar { inset: 0; border-radius: .4rem; overflow: hidden; border: 1px solid currentColor; }
.cxr-side { position: absolute; top: 0; bottom: 0; }
.cxr-film { top: -1.9rem; font-weight: 700; }
.cxr-needle { top: -.55rem; height: 2.6rem; width: 4px; margin-left: -2px; background: currentColor;
  outline: 1px solid rgba(255, 255, 255, .7); border-radius: 2px; }
.cxr-mark { top: 0; height: 1.5rem; border-left: 3px dashed currentColor; margin-left: -1.5px; }
.cxr-threshold { top: 1.75rem; }
.cxr-end { top: 3rem; font-size: .8rem; opacity: .75; }
</style>"""


def answer_line(label: str | None, probability: float | None) -> str:
    """Write the answer for one film, large.

    Args:
        label: ``"NORMAL"`` or ``"PNEUMONIA"``; None without an answer.
        probability: calibrated, 0 to 1; None without an answer.

    Returns:
        HTML.
    """
    if label is None or probability is None:
        return '<span class="cxr-verdict cxr-none">No answer</span>'
    return (
        f'<span class="cxr-verdict" style="background:{COLOURS[label]}">{escape(verdict(label))}</span>'
        f'<p style="margin:.6rem 0 0"><strong style="font-size:1.5rem">{escape(percent(probability))}</strong> '
        "calibrated probability of pneumonia</p>"
    )


def scale(probability: float, threshold: float) -> str:
    """Draw the scale of one film; the sides of the threshold differ in pattern too.

    Args:
        probability: the film's calibrated probability, 0 to 1.
        threshold: 0 to 1.

    Returns:
        HTML with a description for screen readers.
    """
    film, cut = 100 * probability, 100 * threshold
    side = "at or above" if probability >= threshold else "below"
    spoken = (
        f"Scale from 0 to 100 per cent. This film is at {percent(probability)}, {side} the threshold "
        f"of {percent(threshold)}."
    )
    hatched = f"repeating-linear-gradient(45deg, {COLOURS[PNEUMONIA]}99 0 6px, {COLOURS[PNEUMONIA]}55 6px 12px)"
    return f"""<div class="cxr-scale" role="img" aria-label="{escape(spoken)}">
<div class="cxr-bar"><div class="cxr-side" style="left:0;width:{cut:.2f}%;background:{COLOURS[NORMAL]}66"></div>
<div class="cxr-side" style="left:{cut:.2f}%;right:0;background:{hatched}"></div></div>
<div class="cxr-mark" style="left:{cut:.2f}%"></div>
<div class="cxr-threshold" style="{_held(cut)}">threshold {escape(percent(threshold))}</div>
<div class="cxr-needle" style="left:{film:.2f}%"></div>
<div class="cxr-film" style="{_held(film)}">this film {escape(percent(probability))}</div>
<div class="cxr-end" style="left:0">0 %: surely none</div>
<div class="cxr-end" style="right:0">100 %: surely pneumonia</div>
</div>"""


def _held(position: float) -> str:
    """Place a text so that it stays inside the scale at both ends."""
    return f"left:{position:.2f}%;transform:translateX(-{position:.2f}%)"
