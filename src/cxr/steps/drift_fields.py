"""Fields of every step that compares images with those of training: how far they may be apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from cxr.steps.base import Step

if TYPE_CHECKING:
    from cxr.drift.window_comparison import WindowLimits


class WindowLimitsStep(Step):
    """A step that compares images with those of the training; the limits stand in the section ``drift``."""

    films: Annotated[
        int, Field(ge=10, description="Smallest number of images that are compared; fewer are too few to tell.")
    ] = 50
    distance: Annotated[
        float, Field(gt=0, le=1, description="Largest Kolmogorov-Smirnov distance of statistics and probabilities.")
    ] = 0.15
    embedding: Annotated[float, Field(gt=0, le=1, description="Largest energy distance of the embeddings.")] = 0.1
    shares: Annotated[float, Field(gt=0, le=1, description="Largest change of the share of pneumonia.")] = 0.1
    refusals: Annotated[
        float,
        Field(gt=0, le=1, description="How far the share of refused images may exceed the one measured at training."),
    ] = 0.05
    significance: Annotated[
        float,
        Field(
            gt=0, lt=0.5, description="Share of all runs without drift that may be called drift. Larger p-values, "
            "corrected for the number of comparisons, count as chance."
        ),
    ] = 0.01  # fmt: skip
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, description="Seed of the permutations.")] = 0

    def limits(self) -> WindowLimits:
        """Collect how far images may be from those of training."""
        from cxr.drift.window_comparison import WindowLimits

        return WindowLimits(**{name: getattr(self, name) for name in WindowLimits.__dataclass_fields__})
