"""Stars simulated on a GPU are like those that the CPU simulates."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from catalogproc.simulation.simulator import Simulator
from catalogproc.vocabulary import load_vocabulary

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"),
]

STARS = 4000


@pytest.mark.parametrize("corrected", [False, True])
def test_a_gpu_simulates_the_same_stars_by_their_distribution(corrected):
    vocabulary = load_vocabulary(basis="canonical")
    found = {}
    for device in ("cpu", "cuda"):
        values, errors = Simulator(device, corrected).draw(STARS, 3).tokens(vocabulary)
        assert values.device.type == device
        found[device] = values.cpu().double().numpy()
        assert (errors.cpu().double().numpy()[np.isfinite(found[device])] >= 0).all()
    for name in ("teff", "logg", "m_h", "mass", "logebv", "bprp", "bp0", "rp0"):
        one, other = (x[:, vocabulary.column(name)] for x in found.values())
        error = np.nanstd(one) * np.sqrt(2 / STARS)
        assert abs(np.nanmean(one) - np.nanmean(other)) < 5 * error, name
