"""Plans of convolutions: which launches make one, and how the work is cut."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from treadle.base.errors import CompileError, DTypeError, ShapeError
from treadle.base.shapes import Shape, prod
from treadle.codegen.contraction import tile_for
from treadle.codegen.conv_image_plan import image_plan, reaches_all
from treadle.codegen.conv_problem import Kind, Numbers, Problem
from treadle.codegen.conv_weight_plan import weight_plan
from treadle.codegen.gemm import plan_matmul
from treadle.codegen.hooks import Riders
from treadle.ir.launch import Argument, In, Launch, Layout, Plan

Sides = tuple[tuple[int, int], ...]
_NO_RIDERS = Riders()


@lru_cache(maxsize=4096)
def plan_conv(
    kind: Kind, x: Layout, y: Layout, out: Layout, stride: Numbers, padding: Sides,
    dilation: Numbers, groups: int, threads: int, vector_bits: int = 256,
    riders: Riders = _NO_RIDERS,
) -> Plan:  # fmt: skip
    """A convolution over one, two or three axes, or one of its gradients.

    Images are (N, C, *spatial), weights (O, C / groups, *window).

    Args:
        kind: ``forward``: x is the input, y the weight; ``input``: x is grad_out, y the weight;
            ``weight``: x is grad_out, y the input. ``out`` is what the kind is named after.
        x, y: with any strides.
        out: contiguous.
        stride, dilation: along each spatial axis.
        padding: (before, after) along each; what falls on padding is no term of a sum.
        groups: input and output channels are cut into so many groups.
        threads: how many may run the plan at once; the result does not depend on it.
        vector_bits: the width of the target's registers; nor on this.
        riders: work on the elements (image, channel, pixel) of the result, if it ``takes_riders``.

    Raises:
        ShapeError: the shapes do not fit together.
        DTypeError: the dtypes differ or are bool.
        CompileError: riders where there is no place for them.
    """
    roles = {"forward": (x, y, out), "input": (out, y, x), "weight": (y, out, x)}
    image, weight, result = roles[kind]
    _check(kind, image, weight, result, stride, padding, dilation, groups)
    if not (x.dtype is y.dtype is out.dtype):
        raise DTypeError(
            f"conv plan ({kind}): got {x.dtype!r} and {y.dtype!r} -> {out.dtype!r}; the dtypes "
            "must be equal: convert the operands to one dtype first"
        )
    if not out.is_contiguous:
        raise ShapeError(
            f"conv plan ({kind}): the result has strides {out.strides} for shape {out.shape}; "
            "expected a contiguous one"
        )
    tile_for(x.dtype, 1, 1, vector_bits)  # refuses bool
    if prod(out.shape) == 0:
        return Plan(())
    geometry = (stride, padding, dilation, groups)
    problem = _problem(image, weight, result, *geometry, threads, vector_bits)
    if kind != "input":
        problem = _thinned(problem)
    if kind != "weight" and problem.is_pointwise:
        return _pointwise_plan(kind, problem, riders)
    if riders != _NO_RIDERS and (kind == "weight" or not reaches_all(kind, problem)):
        raise CompileError(
            f"conv plan ({kind}): got riders for a result that is not an image, or of which some "
            "pixels have no tap; ask takes_riders first"
        )
    return weight_plan(problem) if kind == "weight" else image_plan(kind, problem, riders)


def takes_riders(
    kind: Kind, x: Layout, y: Layout, out: Layout, stride: Numbers, padding: Sides,
    dilation: Numbers, groups: int,
) -> bool:  # fmt: skip
    """Whether ``plan_conv`` can do elementwise work on the result, as far as this is an image."""
    if kind == "weight" or prod(out.shape) == 0:
        return False
    image, weight, result = (x, y, out) if kind == "forward" else (out, y, x)
    geometry = (stride, padding, dilation, groups)
    return reaches_all(kind, _problem(image, weight, result, *geometry, threads=1, vector_bits=256))


def _problem(
    image: Layout, weight: Layout, result: Layout, stride: Numbers, padding: Sides,
    dilation: Numbers, groups: int, threads: int, vector_bits: int,
) -> Problem:  # fmt: skip
    """The convolution over three axes."""
    missing = 3 - len(stride)
    return Problem(
        _with_axes(image, missing), _with_axes(weight, missing), _with_axes(result, missing),
        (1,) * missing + stride, (0,) * missing + tuple(p[0] for p in padding),
        (1,) * missing + dilation, groups, threads, vector_bits,
    )  # fmt: skip


def _thinned(p: Problem) -> Problem:
    """Without a stride, where of the image a single tap reads every so many elements."""
    if prod(p.weight.shape[2:]) != 1 or any(p.pad):
        return p
    (s_n, s_c, *steps), spatial = p.image.strides, p.result.shape[2:]
    strides = (s_n, s_c, *(a * b for a, b in zip(steps, p.stride, strict=True)))
    image = Layout(p.image.dtype, (*p.image.shape[:2], *spatial), strides)
    return replace(p, image=image, stride=(1, 1, 1))


def _with_axes(layout: Layout, missing: int) -> Layout:
    """With axes of size 1 before the spatial ones."""
    (n, c, *sizes), (s_n, s_c, *strides) = layout.shape, layout.strides
    ones, zeros = (1,) * missing, (0,) * missing
    return Layout(layout.dtype, (n, c, *ones, *sizes), (s_n, s_c, *zeros, *strides))


def _check(
    kind: str,
    image: Layout,
    weight: Layout,
    result: Layout,
    stride: Numbers,
    padding: Sides,
    dilation: Numbers,
    groups: int,
) -> None:
    """The shapes of input, weight and output against each other."""
    shapes = f"input {image.shape}, weight {weight.shape}, output {result.shape}"
    rank = len(stride)
    layouts = (image, weight, result)
    if not 1 <= rank <= 3 or any(len(layout.shape) != 2 + rank for layout in layouts):
        raise ShapeError(
            f"conv plan ({kind}): got {shapes} and stride {stride}; expected (N, C, *spatial), "
            "(O, C / groups, *window), (N, O, *spatial) with one to three spatial axes, and a "
            "stride for each"
        )
    if groups < 1 or min(stride) < 1 or min(dilation) < 1 or min(min(p) for p in padding) < 0:
        raise ShapeError(
            f"conv plan ({kind}): got stride {stride}, padding {padding}, dilation {dilation}, "
            f"groups {groups}; expected padding of at least 0 and the others at least 1"
        )
    (n, channels, *spatial), (outputs, inner, *taps) = image.shape, weight.shape
    sizes = [
        (spatial[a] + sum(padding[a]) - dilation[a] * (taps[a] - 1) - 1) // stride[a] + 1
        for a in range(rank)
    ]
    expected: Shape = (n, outputs, *(max(size, 0) for size in sizes))
    fits = channels == inner * groups and outputs % groups == 0 and min(taps) > 0
    if not fits or result.shape != expected:
        raise ShapeError(
            f"conv plan ({kind}): got {shapes} with stride {stride}, padding {padding}, dilation "
            f"{dilation}, groups {groups}; expected input channels = groups * weight.shape[1], "
            f"output channels a multiple of groups, and an output of shape {expected}"
        )


def _pointwise_plan(kind: Kind, p: Problem, riders: Riders) -> Plan:
    """One tap and no padding: the weight times the matrix (channels, pixels) of every image."""
    source = p.image if kind == "forward" else p.result
    n, pixels = source.shape[0], prod(source.shape[2:])
    (out, inner), (s_out, s_in) = p.weight.shape[:2], p.weight.strides[:2]
    if kind == "input":
        out, inner, s_out, s_in = inner, out, s_in, s_out
    dtype = source.dtype
    a = Layout(dtype, (n, out, inner), (0, s_out, s_in))
    b = Layout(dtype, (n, inner, pixels), (*source.strides[:2], source.strides[-1]))
    c = Layout(dtype, (n, out, pixels), (out * pixels, pixels, 1))
    plan = plan_matmul(a, b, c, p.threads, p.vector_bits, riders)

    def moved(argument: Argument) -> Argument:
        if not isinstance(argument, In) or argument.index > 1:
            return argument
        return In(1 - argument.index, argument.offset)

    launches = (
        Launch(x.kernel, tuple(map(moved, x.args)), x.units, x.work, x.message)
        for x in plan.launches
    )
    return Plan(tuple(launches), plan.workspaces)
