"""Expectations whose pages say in words what was observed: a bare sum does not say that it counts broken rules.

Importing this module imports Great Expectations, which takes seconds.
"""

from __future__ import annotations

from typing import Any

from great_expectations.expectations import ExpectColumnMeanToBeBetween, ExpectColumnSumToBeBetween
from great_expectations.render.components import LegacyDiagnosticRendererType
from great_expectations.render.renderer.renderer import renderer

OBSERVED = "observed"
"""Entry of the meta information of an expectation: what was observed, in words, as HTML."""


class _Worded:
    @classmethod
    @renderer(renderer_type=LegacyDiagnosticRendererType.OBSERVED_VALUE)  # type: ignore[untyped-decorator]
    def _diagnostic_observed_value_renderer(
        cls, configuration: Any = None, result: Any = None, runtime_configuration: Any = None
    ) -> str:
        return str(result.expectation_config.meta[OBSERVED])


class ExpectWordedSumToBeBetween(_Worded, ExpectColumnSumToBeBetween):  # type: ignore[misc]
    """Expect the sum of a column between two limits."""


class ExpectWordedMeanToBeBetween(_Worded, ExpectColumnMeanToBeBetween):  # type: ignore[misc]
    """Expect the mean of a column between two limits."""
