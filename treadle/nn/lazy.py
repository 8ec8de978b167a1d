"""Layers whose input sizes the first input tells."""

from __future__ import annotations

from typing import Any

from treadle.base.errors import ShapeError
from treadle.ir.node import located
from treadle.nn.convolution import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from treadle.nn.linear import Linear
from treadle.nn.module import Module
from treadle.nn.normalization import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
)
from treadle.nn.parameter import UninitializedBuffer, UninitializedParameter, is_lazy
from treadle.tensor.grad_mode import no_grad
from treadle.tensor.tensor import Tensor


class LazyModuleMixin(Module):
    """What lazy layers share: parameters without a shape, until the first input.

    Then ``initialize_parameters`` gives them their shapes and the layer becomes ``cls_to_become``.
    Make the optimizer after that.
    """

    cls_to_become: type[Module] | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the layer, whose input tells the sizes."""
        with no_grad():
            self.initialize_parameters(*args, **kwargs)
        if self.has_uninitialized_params():
            raise located(RuntimeError(
                f"{type(self).__name__}: initialize_parameters() left parameters without a shape"
            ))  # fmt: skip
        if self.cls_to_become is not None:
            self.__class__ = self.cls_to_become  # type: ignore[assignment]
            return self(*args, **kwargs)
        return super().__call__(*args, **kwargs)

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """To be defined: gives the parameters the shapes that the input tells."""
        raise NotImplementedError(f"{type(self).__name__} has no initialize_parameters()")

    def has_uninitialized_params(self) -> bool:
        """Whether the module itself has parameters or buffers without a shape."""
        own = [*self._parameters.values(), *self._buffers.values()]
        return any(is_lazy(member) for member in own)


def _kind(device: Any, dtype: Any) -> dict[str, Any]:
    return {"device": device, "dtype": dtype}


class LazyLinear(LazyModuleMixin, Linear):
    """``Linear`` whose ``in_features`` the first input tells.

    >>> import treadle
    >>> layer = LazyLinear(2)
    >>> layer(treadle.ones(5, 3)).shape, layer
    (treadle.Size([5, 2]), Linear(in_features=3, out_features=2, bias=True))
    """

    cls_to_become = Linear

    def __init__(
        self, out_features: int, bias: bool = True, device: Any = None, dtype: Any = None
    ) -> None:
        super().__init__(0, 0, False, device, dtype)
        kind = _kind(device, dtype)
        self.out_features = out_features
        self.weight = UninitializedParameter(**kind)
        self.register_parameter("bias", UninitializedParameter(**kind) if bias else None)

    def reset_parameters(self) -> None:
        """Draws the parameters anew, where they have a shape."""
        if not self.has_uninitialized_params() and self.in_features:
            super().reset_parameters()

    def initialize_parameters(self, input: Tensor) -> None:
        """Takes the size of the last dimension."""
        self.in_features = input.shape[-1]
        if self.has_uninitialized_params():
            self.weight.materialize((self.out_features, self.in_features))
            if self.bias is not None:
                self.bias.materialize((self.out_features,))
            self.reset_parameters()


class _LazyConvolution(LazyModuleMixin):
    """What lazy convolutions share."""

    def _become_lazy(self, out_channels: int, bias: bool, kind: dict[str, Any]) -> None:
        self.out_channels = out_channels
        self.weight = UninitializedParameter(**kind)
        self.register_parameter("bias", UninitializedParameter(**kind) if bias else None)

    def reset_parameters(self) -> None:
        """Draws the parameters anew, where they have a shape."""
        if not self.has_uninitialized_params() and self.in_channels:
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self, input: Tensor, *args: Any) -> None:
        """Takes the number of channels."""
        rank = self._RANK
        if input.ndim not in (rank + 1, rank + 2):
            raise located(ShapeError(
                f"{type(self).__name__}: got an input of shape {tuple(input.shape)}; it must have "
                f"{rank + 1} or {rank + 2} dimensions"
            ))  # fmt: skip
        channels = input.shape[-rank - 1]
        if channels % self.groups:
            raise located(ValueError(
                f"{type(self).__name__}: got an input of {channels} channels for groups="
                f"{self.groups}; they must be divisible by it"
            ))  # fmt: skip
        self.in_channels = channels
        if self.has_uninitialized_params():
            first, second = self.out_channels, channels
            if self._TRANSPOSED:
                first, second = second, first
            self.weight.materialize((first, second // self.groups, *self.kernel_size))
            if self.bias is not None:
                self.bias.materialize((self.out_channels,))
            self.reset_parameters()


class _LazyForward(_LazyConvolution):
    def __init__(
        self, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        dilation: Any = 1, groups: int = 1, bias: bool = True, padding_mode: str = "zeros",
        device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            0, 0, kernel_size, stride, padding, dilation, groups, False, padding_mode, device, dtype
        )
        self._become_lazy(out_channels, bias, _kind(device, dtype))


class _LazyTransposed(_LazyConvolution):
    def __init__(
        self, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
        output_padding: Any = 0, groups: int = 1, bias: bool = True, dilation: Any = 1,
        padding_mode: str = "zeros", device: Any = None, dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(
            0, 0, kernel_size, stride, padding, output_padding, groups, False, dilation,
            padding_mode, device, dtype,
        )  # fmt: skip
        self._become_lazy(out_channels, bias, _kind(device, dtype))


class LazyConv1d(_LazyForward, Conv1d):
    """``Conv1d`` whose ``in_channels`` the first input tells."""

    cls_to_become = Conv1d


class LazyConv2d(_LazyForward, Conv2d):
    """``Conv2d`` whose ``in_channels`` the first input tells."""

    cls_to_become = Conv2d


class LazyConv3d(_LazyForward, Conv3d):
    """``Conv3d`` whose ``in_channels`` the first input tells."""

    cls_to_become = Conv3d


class LazyConvTranspose1d(_LazyTransposed, ConvTranspose1d):
    """``ConvTranspose1d`` whose ``in_channels`` the first input tells."""

    cls_to_become = ConvTranspose1d


class LazyConvTranspose2d(_LazyTransposed, ConvTranspose2d):
    """``ConvTranspose2d`` whose ``in_channels`` the first input tells."""

    cls_to_become = ConvTranspose2d


class LazyConvTranspose3d(_LazyTransposed, ConvTranspose3d):
    """``ConvTranspose3d`` whose ``in_channels`` the first input tells."""

    cls_to_become = ConvTranspose3d


class _LazyNorm(LazyModuleMixin):
    """What lazy norms of channels share."""

    def __init__(
        self, eps: float = 1e-5, momentum: float | None = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: Any = None, dtype: Any = None, *,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(0, eps, momentum, False, False, device, dtype)
        kind = _kind(device, dtype)
        self.affine = affine
        self.track_running_stats = track_running_stats
        if affine:
            self.weight = UninitializedParameter(**kind)
            self.register_parameter("bias", UninitializedParameter(**kind) if bias else None)
        if track_running_stats:
            self.register_buffer("running_mean", UninitializedBuffer(**kind))
            self.register_buffer("running_var", UninitializedBuffer(**kind))
            self._count_batches()

    def reset_parameters(self) -> None:
        """As new, where there are shapes."""
        if not self.has_uninitialized_params() and self.num_features:
            super().reset_parameters()  # type: ignore[misc]

    def initialize_parameters(self, input: Tensor) -> None:
        """Takes the number of channels."""
        self.num_features = input.shape[self._channel_axis(input)]
        if self.has_uninitialized_params():
            for member in (*self._parameters.values(), *self._buffers.values()):
                if is_lazy(member):
                    member.materialize((self.num_features,))
            self.reset_parameters()


class _LazyInstanceNorm(_LazyNorm):
    def __init__(
        self, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True,
        track_running_stats: bool = True, device: Any = None, dtype: Any = None, *,
        bias: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(eps, momentum, affine, track_running_stats, device, dtype, bias=bias)


class LazyBatchNorm1d(_LazyNorm, BatchNorm1d):
    """``BatchNorm1d`` whose ``num_features`` the first input tells."""

    cls_to_become = BatchNorm1d


class LazyBatchNorm2d(_LazyNorm, BatchNorm2d):
    """``BatchNorm2d`` whose ``num_features`` the first input tells."""

    cls_to_become = BatchNorm2d


class LazyBatchNorm3d(_LazyNorm, BatchNorm3d):
    """``BatchNorm3d`` whose ``num_features`` the first input tells."""

    cls_to_become = BatchNorm3d


class LazyInstanceNorm1d(_LazyInstanceNorm, InstanceNorm1d):
    """``InstanceNorm1d`` whose ``num_features`` the first input tells."""

    cls_to_become = InstanceNorm1d


class LazyInstanceNorm2d(_LazyInstanceNorm, InstanceNorm2d):
    """``InstanceNorm2d`` whose ``num_features`` the first input tells."""

    cls_to_become = InstanceNorm2d


class LazyInstanceNorm3d(_LazyInstanceNorm, InstanceNorm3d):
    """``InstanceNorm3d`` whose ``num_features`` the first input tells."""

    cls_to_become = InstanceNorm3d


__all__ = [
    "LazyBatchNorm1d", "LazyBatchNorm2d", "LazyBatchNorm3d", "LazyConv1d", "LazyConv2d",
    "LazyConv3d", "LazyConvTranspose1d", "LazyConvTranspose2d", "LazyConvTranspose3d",
    "LazyInstanceNorm1d", "LazyInstanceNorm2d", "LazyInstanceNorm3d", "LazyLinear",
]  # fmt: skip
