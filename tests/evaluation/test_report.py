"""Tables of a sweep, against values computed by hand."""

import math

import pandas as pd
import pytest

from clip.evaluation.report import robustness


def test_robustness_by_hand():
    """Scores 0.8, 0.6 and 0.2 (of two masks) at the rates 0, 0.5 and 1; another run without rate 0."""
    rows = [(0.0, 0, 0.8), (0.5, 0, 0.6), (1.0, 0, 0.1), (1.0, 1, 0.3)]
    results = pd.DataFrame(rows, columns=["missing_ratio", "missing_seed", "F1_Macro"])
    results = results.assign(run="a", method="dcp", missing_type="text")
    other = results[results["missing_ratio"] > 0].assign(run="b")
    first, second = robustness(pd.concat([results, other]), "F1_Macro").to_dict("records")
    found = [first[f"relative_{rate}"] for rate in ("0", "0.5", "1")]
    assert found == pytest.approx([1.0, 0.75, 0.25])
    assert first["effective"] == pytest.approx((0.7 * 0.5 + 0.4 * 0.5) / 1.0)
    assert math.isnan(second["relative_1"])
    assert math.isnan(second["effective"])
    (alone,) = robustness(results[results["missing_ratio"] == 1.0], "F1_Macro").to_dict("records")
    assert math.isnan(alone["effective"])
