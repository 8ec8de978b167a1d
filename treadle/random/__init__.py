"""Random numbers: generators, and tensors drawn from them.

>>> from treadle import random
>>> g = random.Generator().manual_seed(1)
>>> a = random.randn(4, generator=g)
>>> b = random.randn(4, generator=g.manual_seed(1))
>>> a.tolist() == b.tolist()
True
"""

from treadle.random.generator import (
    Generator,
    default_generator,
    drawing_from,
    fork_rng,
    get_rng_state,
    initial_seed,
    manual_seed,
    seed,
    set_rng_state,
)
from treadle.random.sampling import (
    bernoulli,
    draw,
    multinomial,
    normal,
    rand,
    rand_like,
    randint,
    randint_like,
    randn,
    randn_like,
    randperm,
)

__all__ = [
    "Generator", "bernoulli", "default_generator", "draw", "drawing_from", "fork_rng",
    "get_rng_state", "initial_seed", "manual_seed", "multinomial", "normal", "rand", "rand_like",
    "randint", "randint_like", "randn", "randn_like", "randperm", "seed", "set_rng_state",
]  # fmt: skip
