"""Normalisation layers."""

from __future__ import annotations

from typing import Any

from treadle.base import dtypes
from treadle.base.errors import ShapeError
from treadle.ir.node import located
from treadle.nn import functional as F
from treadle.nn import init
from treadle.nn.module import Module
from treadle.nn.parameter import Parameter
from treadle.tensor.creation import empty, ones, tensor, zeros
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.tensor import Tensor


class _ChannelNorm(Module):
    """What norms of channels share: settings, weight and bias, running statistics."""

    ranks: tuple[int, ...] = ()
    shapes = ""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
        affine: bool = True, track_running_stats: bool = True, device: Any = None,
        dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        kind = {"device": device, "dtype": dtype}
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        for name, is_there in (("weight", affine), ("bias", affine and bias)):
            vector = Parameter(empty(num_features, **kind)) if is_there else None
            self.register_parameter(name, vector)
        tracked = track_running_stats
        self.register_buffer("running_mean", zeros(num_features, **kind) if tracked else None)
        self.register_buffer("running_var", ones(num_features, **kind) if tracked else None)
        self.register_buffer("num_batches_tracked", None)
        if tracked:
            self._count_batches()
        self.reset_parameters()

    def _count_batches(self) -> None:
        self.num_batches_tracked = tensor(0)

    def _channel_axis(self, input: Tensor) -> int:
        """Where the channels of an input are."""
        return 1

    def reset_running_stats(self) -> None:
        """Mean 0, variance 1, no batch seen."""
        if self.track_running_stats:
            self.running_mean.zero_()
            self.running_var.fill_(1)
            self.num_batches_tracked.zero_()

    def reset_parameters(self) -> None:
        """Weight 1, bias 0, running statistics as new."""
        self.reset_running_stats()
        if self.affine:
            init.ones_(self.weight)
            if self.bias is not None:
                init.zeros_(self.bias)

    def extra_repr(self) -> str:
        """The settings."""
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}, "
            f"track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_ChannelNorm):
    """What batch norms share; they differ in the ranks of their inputs."""

    @no_grad()  # not a `with` block, at whose end Ctrl-C could leave gradients off
    def _observed(self) -> float | Tensor:
        """Counts the batch; the share of its statistics in the running ones."""
        self.num_batches_tracked.add_(1)
        if self.momentum is not None:
            return self.momentum
        return 1.0 / self.num_batches_tracked.to(dtypes.float64)

    def forward(self, input: Tensor) -> Tensor:
        """The normalised tensor, in the shape of the input."""
        if input.ndim not in self.ranks or input.shape[1] != self.num_features:
            raise located(ShapeError(
                f"{type(self).__name__}: got an input of shape {tuple(input.shape)}; it must be "
                f"{self.shapes} with C = {self.num_features}"
            ))  # fmt: skip
        tracked = self.track_running_stats
        moving = self.training and tracked
        rate = self._observed() if moving else 0.0
        used = moving or not self.training
        return F.batch_norm(
            input, self.running_mean if used else None, self.running_var if used else None,
            self.weight, self.bias, self.training or not tracked, rate, self.eps,
        )  # fmt: skip


class BatchNorm1d(_BatchNorm):
    """Batch normalisation of (N, C) or (N, C, L) (Ioffe and Szegedy, 2015).

    ``(x - mean) / sqrt(var + eps) * weight + bias`` for every channel. In training mean and biased
    variance are the batch's, and move the running ones,
    ``running = (1 - momentum) * running + momentum * observed`` (the variance unbiased);
    ``momentum=None`` makes these plain averages over all batches. In evaluation the running ones
    are used, if ``track_running_stats``.
    """

    ranks = (2, 3)
    shapes = "(N, C) or (N, C, L)"


class BatchNorm2d(_BatchNorm):
    """Batch normalisation of (N, C, H, W); as ``BatchNorm1d``, over N, H and W.

    >>> import treadle
    >>> y = BatchNorm2d(3)(treadle.randn(8, 3, 4, 4) * 5 + 2)
    >>> bool((y.mean((0, 2, 3)).abs() < 1e-4).all())
    True
    """

    ranks = (4,)
    shapes = "(N, C, H, W)"


class BatchNorm3d(_BatchNorm):
    """Batch normalisation of (N, C, D, H, W); as ``BatchNorm1d``, over N, D, H and W."""

    ranks = (5,)
    shapes = "(N, C, D, H, W)"


class _InstanceNorm(_ChannelNorm):
    """What instance norms share; they differ in the ranks of their inputs."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = False,
        track_running_stats: bool = False, device: Any = None, dtype: Any = None, *,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias
        )

    def _channel_axis(self, input: Tensor) -> int:
        return 1 - self.ranks[0]

    def forward(self, input: Tensor) -> Tensor:
        """The normalised tensor, in the shape of the input."""
        rank = self.ranks[0]  # with a batch
        if input.ndim not in (rank - 1, rank) or input.shape[1 - rank] != self.num_features:
            raise located(ShapeError(
                f"{type(self).__name__}: got an input of shape {tuple(input.shape)}; it must be "
                f"{self.shapes} with C = {self.num_features}"
            ))  # fmt: skip
        x = input if input.ndim == rank else input.unsqueeze(0)
        out = F.instance_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias,
            self.training or not self.track_running_stats, self.momentum or 0.0, self.eps,
        )  # fmt: skip
        return out if input.ndim == rank else out.squeeze(0)


class InstanceNorm1d(_InstanceNorm):
    """Normalisation of every channel of every example of (N, C, L) or (C, L) by itself.

    ``(x - mean) / sqrt(var + eps)`` (Ulyanov et al., 2016), times a weight and plus a bias per
    channel where ``affine``. With ``track_running_stats`` the means over the batch move running
    statistics in training, which are used in evaluation.
    """

    ranks = (3,)
    shapes = "(N, C, L) or (C, L)"


class InstanceNorm2d(_InstanceNorm):
    """As ``InstanceNorm1d``, for (N, C, H, W) or (C, H, W)."""

    ranks = (4,)
    shapes = "(N, C, H, W) or (C, H, W)"


class InstanceNorm3d(_InstanceNorm):
    """As ``InstanceNorm1d``, for (N, C, D, H, W) or (C, D, H, W)."""

    ranks = (5,)
    shapes = "(N, C, D, H, W) or (C, D, H, W)"


class _LastDimensions(Module):
    """Settings of a norm over the last dimensions."""

    eps: Any

    def __init__(self, normalized_shape: Any, elementwise_affine: bool) -> None:
        super().__init__()
        is_int = isinstance(normalized_shape, int)
        self.normalized_shape = (normalized_shape,) if is_int else tuple(normalized_shape)
        self.elementwise_affine = elementwise_affine

    def extra_repr(self) -> str:
        """The settings."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, elementwise_affine={self.elementwise_affine}"
        )


class LayerNorm(_LastDimensions):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` over the last dimensions.

    Mean and biased variance are taken over the dimensions of ``normalized_shape``, which weight
    (ones) and bias (zeros) share.
    """

    def __init__(
        self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True,
        bias: bool = True, device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(normalized_shape, elementwise_affine)
        self.eps = eps
        kind = {"device": device, "dtype": dtype}
        shape = self.normalized_shape
        weight = Parameter(ones(shape, **kind)) if elementwise_affine else None
        self.register_parameter("weight", weight)
        shift = Parameter(zeros(shape, **kind)) if elementwise_affine and bias else None
        self.register_parameter("bias", shift)

    def reset_parameters(self) -> None:
        """Weight 1, bias 0."""
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """The normalised tensor, in the shape of the input."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(_LastDimensions):
    """``x / sqrt(mean(x^2) + eps) * weight`` over the last dimensions (Zhang, Sennrich 2019)."""

    def __init__(
        self, normalized_shape: Any, eps: float | None = None, elementwise_affine: bool = True,
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(normalized_shape, elementwise_affine)
        self.eps = eps
        shape = self.normalized_shape
        weight = Parameter(ones(shape, device=device, dtype=dtype)) if elementwise_affine else None
        self.register_parameter("weight", weight)

    def reset_parameters(self) -> None:
        """Weight 1."""
        if self.weight is not None:
            init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """The normalised tensor, in the shape of the input."""
        return F.rms_norm(x, self.normalized_shape, self.weight, self.eps)


class GroupNorm(Module):
    """``(x - mean) / sqrt(var + eps) * weight + bias`` for every group of channels of an example.

    (N, C, ...) is cut into ``num_groups`` groups of C / num_groups channels; weight and bias are
    per channel.
    """

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True,
        device: Any = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if num_groups < 1 or num_channels % num_groups:
            raise located(ValueError(
                f"GroupNorm: got {num_channels} channels and {num_groups} groups; the number of "
                f"channels must be divisible by the number of groups"
            ))  # fmt: skip
        self.num_groups = num_groups
        self.num_channels = num_channels
        self.eps = eps
        self.affine = affine
        kind = {"device": device, "dtype": dtype}
        self.register_parameter("weight", Parameter(ones(num_channels, **kind)) if affine else None)
        shift = Parameter(zeros(num_channels, **kind)) if affine and bias else None
        self.register_parameter("bias", shift)

    def reset_parameters(self) -> None:
        """Weight 1, bias 0."""
        if self.affine:
            init.ones_(self.weight)
            if self.bias is not None:
                init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        """The normalised tensor, in the shape of the input."""
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.num_groups}, {self.num_channels}, eps={self.eps}, affine={self.affine}"


class SyncBatchNorm(_BatchNorm):
    """Batch normalisation over all processes; there is one, so it is ``BatchNorm`` of any rank."""

    ranks = (2, 3, 4, 5)
    shapes = "(N, C, ...)"

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
        affine: bool = True, track_running_stats: bool = True, process_group: Any = None,
        device: Any = None, dtype: Any = None, *, bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias
        )
        self.process_group = process_group

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Any = None) -> Module:
        """The module with a ``SyncBatchNorm`` in the place of every batch norm."""
        if isinstance(module, _BatchNorm) and not isinstance(module, cls):
            made = cls(
                module.num_features, module.eps, module.momentum, module.affine,
                module.track_running_stats, process_group, bias=module.bias is not None,
            )  # fmt: skip
            for name, p in module._parameters.items():
                made._parameters[name] = p
            for name, b in module._buffers.items():
                made._buffers[name] = b
            return made.train(module.training)
        for name, child in list(module.named_children()):
            module.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return module


class LocalResponseNorm(Module):
    """``x / (k + alpha * mean of x^2 over size channels around)^beta`` for (N, C, ...)."""

    def __init__(self, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> None:
        super().__init__()
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k

    def forward(self, input: Tensor) -> Tensor:
        """The normalised tensor, in the shape of the input."""
        return F.local_response_norm(input, self.size, self.alpha, self.beta, self.k)

    def extra_repr(self) -> str:
        """The settings."""
        return f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"


class CrossMapLRN2d(LocalResponseNorm):
    """``LocalResponseNorm`` under PyTorch's older name."""


__all__ = [
    "BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "CrossMapLRN2d", "GroupNorm", "InstanceNorm1d",
    "InstanceNorm2d", "InstanceNorm3d", "LayerNorm", "LocalResponseNorm", "RMSNorm",
    "SyncBatchNorm",
]  # fmt: skip
