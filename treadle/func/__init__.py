"""PyTorch's ``func``: transformations of functions, which may be nested in any order.

>>> import treadle
>>> per_sample = vmap(grad(lambda w, x: (w * x).sum() ** 2), in_dims=(None, 0))
>>> per_sample(treadle.ones(2), treadle.tensor([[1.0, 2.0], [3.0, 4.0]]))
tensor([[ 6., 12.],
        [42., 56.]])
"""

from treadle.func.batching import vmap
from treadle.func.jacobians import hessian, jacfwd, jacrev
from treadle.func.modules import functional_call, stack_module_state
from treadle.func.transforms import grad, grad_and_value, jvp, linearize, vjp

__all__ = [
    "functional_call", "grad", "grad_and_value", "hessian", "jacfwd", "jacrev", "jvp", "linearize",
    "stack_module_state", "vjp", "vmap",
]  # fmt: skip
