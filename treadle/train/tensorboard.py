"""Event files for TensorBoard, written by its own package: ``tensorboard --logdir runs``."""

from __future__ import annotations

import io
import math
import socket
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace, TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from treadle.base.errors import MissingExtraError

# PyTorch's 'tensorflow' bins: limits that grow by a tenth, either side of 0.
_POSITIVE = 1e-12 * 1.1 ** np.arange(math.ceil(math.log(1e20 / 1e-12, 1.1)))
_EXPONENTIAL_BINS = np.concatenate([-_POSITIVE[::-1], [0.0], _POSITIVE])


class SummaryWriter:
    """Writes scalars, images, histograms and texts for TensorBoard.

    Args:
        log_dir: the folder of the event files; ``runs/DATE_HOST`` unless named.
        comment: put behind the folder's name where ``log_dir`` is not named.
        purge_step: TensorBoard hides what earlier runs wrote from this step on.
        max_queue: events kept in memory before they are written.
        flush_secs: seconds after which they are written in any case.
        filename_suffix: put behind the name of each event file.

    Raises MissingExtraError where the extra ``tensorboard`` is not installed.
    Source: PyTorch's ``torch.utils.tensorboard.SummaryWriter``.

    Example::

        with SummaryWriter("runs/first") as writer:
            writer.add_scalar("loss/train", 0.25, global_step=1)
    """

    def __init__(
        self,
        log_dir: str | Path | None = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: int = 120,
        filename_suffix: str = "",
    ) -> None:
        if log_dir is None:
            now = datetime.now().strftime("%b%d_%H-%M-%S")
            log_dir = f"runs/{now}_{socket.gethostname()}{comment}"
        self.log_dir = str(log_dir)
        self._protos = _protos()
        self._options = (max_queue, flush_secs, filename_suffix)
        self._files: dict[str, Any] = {}
        main = self._file(self.log_dir)
        if purge_step is not None:
            event, session = self._protos.Event, self._protos.SessionLog
            main.add_event(event(step=purge_step, file_version="brain.Event:2"))
            main.add_event(event(step=purge_step, session_log=session(status=session.START)))

    def get_logdir(self) -> str:
        """The folder that the event files are in."""
        return self.log_dir

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        new_style: bool = False,
        double_precision: bool = False,
    ) -> None:
        """One number: a Python number, or a tensor or array of one element.

        ``new_style`` writes a tensor proto, in float64 with ``double_precision``.
        """
        value = self._scalar(tag, scalar_value, new_style, double_precision)
        self._write(self.log_dir, value, global_step, walltime)

    def add_scalars(
        self,
        main_tag: str,
        tag_scalar_dict: Mapping[str, Any],
        global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """Several numbers that TensorBoard draws into one chart, a sub-folder for each."""
        for tag, number in tag_scalar_dict.items():
            folder = f"{self.log_dir}/{main_tag.replace('/', '_')}_{tag}"
            value = self._scalar(main_tag, number, False, False)
            self._write(folder, value, global_step, walltime)

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        dataformats: str = "CHW",
    ) -> None:
        """One picture: uint8, or floats from 0 to 1; ``dataformats`` is CHW, HWC or HW."""
        pixels = _pixels(img_tensor, dataformats, ("CHW", "HWC", "HW"))
        self._write(self.log_dir, self._image(tag, pixels), global_step, walltime)

    def add_images(
        self,
        tag: str,
        img_tensor: Any,
        global_step: int | None = None,
        walltime: float | None = None,
        dataformats: str = "NCHW",
    ) -> None:
        """A batch of pictures as one, in rows of 8; ``dataformats`` is NCHW or NHWC."""
        pixels = _tile(_pixels(img_tensor, dataformats, ("NCHW", "NHWC")), columns=8)
        self._write(self.log_dir, self._image(tag, pixels), global_step, walltime)

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: int | None = None,
        bins: str | int | NDArray[Any] = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:
        """How values are distributed; ``bins`` is 'tensorflow' or what ``np.histogram`` takes.

        With ``max_bins``, neighbouring bins are merged until there are no more than that.
        """
        flat = _array(values).astype(np.float64).ravel()
        if flat.size == 0:
            raise ValueError(f"add_histogram({tag!r}) got no values; expected at least one")
        limits: Any = _EXPONENTIAL_BINS if isinstance(bins, str) and bins == "tensorflow" else bins
        counts, edges = np.histogram(flat, bins=limits)
        if max_bins is not None and len(counts) > max_bins:
            merge = math.ceil(len(counts) / max_bins)
            counts = np.add.reduceat(counts, np.arange(0, len(counts), merge))
            edges = np.append(edges[:-1][::merge], edges[-1])
        used = np.flatnonzero(counts)
        part = slice(used[0], used[-1] + 1) if used.size else slice(0, 0)
        # TensorBoard takes a bin's lower limit from the bin before it: an empty one comes first.
        histogram = self._protos.HistogramProto(
            min=flat.min(),
            max=flat.max(),
            num=flat.size,
            sum=flat.sum(),
            sum_squares=flat @ flat,
            bucket_limit=[edges[part.start], *edges[1:][part]],
            bucket=[0, *counts[part]],
        )
        value = self._protos.Summary.Value(tag=tag, histo=histogram)
        self._write(self.log_dir, value, global_step, walltime)

    def add_text(
        self,
        tag: str,
        text_string: str,
        global_step: int | None = None,
        walltime: float | None = None,
    ) -> None:
        """A text, shown as Markdown."""
        shape = self._protos.TensorShapeProto(dim=[self._protos.TensorShapeProto.Dim(size=1)])
        tensor = self._protos.TensorProto(
            dtype="DT_STRING", string_val=[text_string.encode()], tensor_shape=shape
        )
        value = self._tensor(f"{tag}/text_summary", "text", tensor)
        self._write(self.log_dir, value, global_step, walltime)

    def flush(self) -> None:
        """Everything added so far is on disk when this returns."""
        for file in self._files.values():
            file.flush()

    def close(self) -> None:
        """Writes what is left and closes the files; adding again opens new ones."""
        for file in self._files.values():
            file.close()
        self._files.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _file(self, folder: str) -> Any:
        if folder not in self._files:
            queue, seconds, suffix = self._options
            self._files[folder] = self._protos.EventFileWriter(folder, queue, seconds, suffix)
        return self._files[folder]

    def _write(self, folder: str, value: Any, step: int | None, walltime: float | None) -> None:
        event = self._protos.Event(
            summary=self._protos.Summary(value=[value]),
            wall_time=time.time() if walltime is None else walltime,
            step=0 if step is None else int(step),
        )
        self._file(folder).add_event(event)

    def _scalar(self, tag: str, scalar: Any, new_style: bool, double: bool) -> Any:
        numbers = _array(scalar)
        if numbers.size != 1:
            raise ValueError(
                f"add_scalar({tag!r}) got shape {numbers.shape}; expected a single number: "
                "reduce it first, for example with .mean()"
            )
        number = float(numbers.reshape(()))
        if not new_style:
            return self._protos.Summary.Value(tag=tag, simple_value=number)
        field = {"dtype": "DT_DOUBLE", "double_val": [number]}
        if not double:
            field = {"dtype": "DT_FLOAT", "float_val": [number]}
        return self._tensor(tag, "scalars", self._protos.TensorProto(**field))

    def _tensor(self, tag: str, plugin: str, tensor: Any) -> Any:
        data = self._protos.SummaryMetadata.PluginData(plugin_name=plugin)
        metadata = self._protos.SummaryMetadata(plugin_data=data)
        return self._protos.Summary.Value(tag=tag, metadata=metadata, tensor=tensor)

    def _image(self, tag: str, pixels: NDArray[np.uint8]) -> Any:
        height, width, channels = pixels.shape
        image = self._protos.Summary.Image(
            height=height, width=width, colorspace=channels, encoded_image_string=_png(pixels)
        )
        return self._protos.Summary.Value(tag=tag, image=image)


def _protos() -> SimpleNamespace:
    """TensorBoard's messages and its file writer, in one namespace."""
    try:
        from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, tensor_shape_pb2
        from tensorboard.summary.writer.event_file_writer import EventFileWriter
    except ImportError:
        raise MissingExtraError("tensorboard", "tensorboard", "SummaryWriter") from None
    return SimpleNamespace(
        Event=event_pb2.Event,
        SessionLog=event_pb2.SessionLog,
        Summary=summary_pb2.Summary,
        SummaryMetadata=summary_pb2.SummaryMetadata,
        HistogramProto=summary_pb2.HistogramProto,
        TensorProto=tensor_pb2.TensorProto,
        TensorShapeProto=tensor_shape_pb2.TensorShapeProto,
        EventFileWriter=EventFileWriter,
    )


def _array(value: Any) -> NDArray[Any]:
    """A NumPy array from a tensor, an array or a number."""
    return np.asarray(value.detach().numpy() if hasattr(value, "detach") else value)


def _pixels(image: Any, dataformats: str, known: tuple[str, ...]) -> NDArray[np.uint8]:
    """Bytes of a picture (H, W, C) or of several (N, H, W, C), with 1, 3 or 4 channels."""
    array, letters = _array(image), dataformats.upper()
    if letters not in known or array.ndim != len(letters):
        raise ValueError(
            f"got an image of shape {array.shape} with dataformats={dataformats!r}; expected one "
            f"letter for each dimension, and one of {', '.join(known)}"
        )
    wanted = "NHWC" if "N" in letters else "HWC"
    array = array.transpose([letters.index(letter) for letter in wanted if letter in letters])
    if "C" not in letters:
        array = array[..., None]
    if array.shape[-1] not in (1, 3, 4):
        raise ValueError(
            f"got an image of shape {_array(image).shape} with dataformats={dataformats!r}, that "
            f"is {array.shape[-1]} channels; expected 1 (grey), 3 (RGB) or 4 (RGBA)"
        )
    if array.dtype != np.uint8:
        array = (array.astype(np.float32) * 255).clip(0, 255).astype(np.uint8)
    return array


def _tile(images: NDArray[np.uint8], columns: int) -> NDArray[np.uint8]:
    """Images (N, H, W, C) as one (rows * H, columns * W, C), black where there is none."""
    count, height, width, channels = images.shape
    columns = max(min(columns, count), 1)
    rows = max(math.ceil(count / columns), 1)
    grid = np.zeros((rows * columns, height, width, channels), np.uint8)
    grid[:count] = images
    grid = grid.reshape(rows, columns, height, width, channels).transpose(0, 2, 1, 3, 4)
    return grid.reshape(rows * height, columns * width, channels)


def _png(pixels: NDArray[np.uint8]) -> bytes:
    try:
        from PIL import Image
    except ImportError:
        raise MissingExtraError("pillow", "tensorboard", "Writing an image") from None
    stream = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(stream, format="PNG")
    return stream.getvalue()
