"""The study of calibrators: other patients judge, and nothing beats Platt where nothing should."""

from __future__ import annotations

import numpy as np
import pytest

from cxr_node.training.measure import bootstrap
from tests.training.test_calibrate import sample
from tools import calibrators


@pytest.mark.parametrize("bend", [1.0, 2.0])
def test_calibrators_are_compared_on_other_patients(bend: float) -> None:
    """Where the truth bends as only the beta map can, it wins; where it does not, nothing beats Platt."""
    rng = np.random.default_rng(2)
    logit = rng.normal(scale=3.0, size=3000)
    positive = rng.random(3000) < bootstrap.sigmoid(np.logaddexp(0.0, logit) ** bend - np.logaddexp(0.0, -logit))
    compared = calibrators.compare(sample(logit, positive), float(positive.mean()))
    assert set(compared) == {"platt", "temperature", "beta", "isotonic"}
    better = {name: styles["clean"]["log_loss_beyond_platt"]["high"] < 0.0 for name, styles in compared.items()}
    assert better["beta"] == (bend != 1.0)
    assert all(styles["clean"]["calibration_error"] < 0.1 for styles in compared.values())
