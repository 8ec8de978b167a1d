"""What the tests of optimizers share."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

import treadle
from treadle import nn


@pytest.fixture
def follows():
    """Steps of an optimizer beside those of its formula, ``reference(p, g, state, t, ...)``.

    The state is saved and loaded on the way. Gives the optimizer, its parameters and the states of
    the formula.
    """

    def run(make, reference, settings, maximize=False, shapes=((3, 4), (5,))):
        rng = np.random.default_rng(0)
        wanted = [rng.normal(size=shape) for shape in shapes]
        states = [{} for _ in shapes]
        parameters = [nn.Parameter(treadle.tensor(w)) for w in wanted]
        optimizer = make(parameters, maximize=maximize, **settings)
        for t in range(1, 9):
            for i, p in enumerate(parameters):
                g = rng.normal(size=p.shape)
                p.grad = treadle.tensor(g)
                wanted[i] = reference(wanted[i], -g if maximize else g, states[i], t, **settings)
            optimizer.step()
            if t == 4:  # state and settings survive being saved
                saved = pickle.loads(pickle.dumps(optimizer.state_dict()))
                optimizer = make(parameters, lr=55.0)
                optimizer.load_state_dict(saved)
        for p, w in zip(parameters, wanted, strict=True):
            np.testing.assert_allclose(p.detach().numpy(), w, rtol=1e-9)
            assert p.is_leaf
            assert p.requires_grad
        return optimizer, parameters, states

    return run
