"""Event files, read back with TensorBoard's own reader."""

import io
import sys

import numpy as np
import pytest

from treadle.base.errors import MissingExtraError
from treadle.utils.tensorboard import SummaryWriter

pytest.importorskip("tensorboard", reason="needs the extra 'tensorboard'")


def _read(path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(path), size_guidance={"images": 0, "tensors": 0}).Reload()


def _pixels(event) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))


def test_scalars(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalar("loss", 0.5, 3, walltime=100.0)
        writer.add_scalar("loss", np.array([0.25]), 4)
        writer.add_scalar("new", 1 / 3, 1, new_style=True)
        writer.add_scalar("double", 1 / 3, 1, new_style=True, double_precision=True)
    events = _read(tmp_path)
    first, second = events.Scalars("loss")
    assert (first.step, first.value, first.wall_time) == (3, 0.5, 100.0)
    assert (second.step, second.value) == (4, 0.25)
    assert events.Tensors("new")[0].tensor_proto.float_val[0] == np.float32(1 / 3)
    assert events.Tensors("double")[0].tensor_proto.double_val[0] == 1 / 3


def test_several_scalars_in_one_chart(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_scalars("loss/all", {"train": 1.0, "test": 2.0}, 5)
    assert _read(tmp_path / "loss_all_train").Scalars("loss/all")[0].value == 1.0
    assert _read(tmp_path / "loss_all_test").Scalars("loss/all")[0].value == 2.0


def test_image_layouts_and_ranges(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    with SummaryWriter(tmp_path) as writer:
        writer.add_image("hwc", colour, dataformats="HWC")
        writer.add_image("chw", colour.transpose(2, 0, 1))
        writer.add_image("hw", np.linspace(-1, 2, 6, dtype=np.float32)[None], dataformats="HW")
    events = _read(tmp_path)
    np.testing.assert_array_equal(_pixels(events.Images("hwc")[0]), colour)
    np.testing.assert_array_equal(_pixels(events.Images("chw")[0]), colour)
    np.testing.assert_array_equal(_pixels(events.Images("hw")[0]), [[0, 0, 51, 204, 255, 255]])


def test_images_are_tiled_in_rows_of_eight(tmp_path):
    batch = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 1, 2, 3), np.uint8)
    with SummaryWriter(tmp_path) as writer:
        writer.add_images("digits", batch, 7)
    event = _read(tmp_path).Images("digits")[0]
    tiles = _pixels(event)[::2, ::3]
    assert event.step == 7
    np.testing.assert_array_equal(tiles, [range(8), [8, 9, 0, 0, 0, 0, 0, 0]])


def test_histogram(tmp_path):
    values = np.array([-1.0, 0.5, 0.5, 2.0, 2.0, 2.0])
    with SummaryWriter(tmp_path) as writer:
        writer.add_histogram("plain", values, 1, bins=np.array([-2, 0, 1, 3, 9]))
        writer.add_histogram("default", values, 1)
        writer.add_histogram("merged", values, 1, max_bins=20)
    events = _read(tmp_path)
    plain = events.Histograms("plain")[0].histogram_value
    assert list(plain.bucket_limit) == [-2, 0, 1, 3]
    assert list(plain.bucket) == [0, 1, 2, 3]
    assert (plain.min, plain.max, plain.num, plain.sum) == (-1, 2, 6, 6)
    assert plain.sum_squares == 13.5
    default = events.Histograms("default")[0].histogram_value
    limits = np.array(default.bucket_limit)
    filled = np.flatnonzero(default.bucket)
    assert [default.bucket[i] for i in filled] == [1, 2, 3]
    for at, value in zip(filled, (-1.0, 0.5, 2.0), strict=True):
        assert limits[at - 1] <= value <= limits[at]
    merged = events.Histograms("merged")[0].histogram_value
    assert sum(merged.bucket) == 6
    assert len(merged.bucket) <= 21


def test_text(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        writer.add_text("note", "*hello* ü", 2)
    event = _read(tmp_path).Tensors("note/text_summary")[0]
    assert event.step == 2
    assert event.tensor_proto.string_val[0].decode() == "*hello* ü"


def test_flush_makes_it_readable_and_close_can_be_followed_by_more(tmp_path):
    writer = SummaryWriter(tmp_path)
    writer.add_scalar("a", 1.0, 1)
    writer.flush()
    assert _read(tmp_path).Scalars("a")[0].value == 1.0
    writer.close()
    writer.close()
    writer.add_scalar("a", 2.0, 2)
    writer.close()
    assert sorted(event.value for event in _read(tmp_path).Scalars("a")) == [1.0, 2.0]


def test_purge_step_hides_what_was_written_after_it(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        for step in range(5):
            writer.add_scalar("a", 1.0, step)
    with SummaryWriter(tmp_path, purge_step=3, filename_suffix=".again") as writer:
        writer.add_scalar("a", 2.0, 3)
    assert [event.value for event in _read(tmp_path).Scalars("a")] == [1.0, 1.0, 1.0, 2.0]


def test_default_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with SummaryWriter(comment="-first") as writer:
        assert writer.get_logdir().startswith("runs/")
        assert writer.get_logdir().endswith("-first")
    assert list(tmp_path.glob("runs/*-first/events.out.tfevents.*"))


def test_bad_input(tmp_path):
    with SummaryWriter(tmp_path) as writer:
        with pytest.raises(ValueError, match=r"shape \(2,\); expected a single number"):
            writer.add_scalar("a", np.zeros(2))
        with pytest.raises(ValueError, match=r"\(4, 4\) with dataformats='CHW'; expected one"):
            writer.add_image("a", np.zeros((4, 4)))
        with pytest.raises(ValueError, match="one of NCHW, NHWC"):
            writer.add_images("a", np.zeros((4, 4, 4)), dataformats="HWC")
        with pytest.raises(ValueError, match="5 channels; expected 1"):
            writer.add_image("a", np.zeros((5, 4, 4)))
        with pytest.raises(ValueError, match="got no values; expected at least one"):
            writer.add_histogram("a", [])


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.event_file_writer", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'treadle\[tensorboard\]'"):
        SummaryWriter(tmp_path)
