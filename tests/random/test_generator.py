"""Generators: seeds, states, reservation from several threads, forks."""

import copy
import os
import pickle
import threading

import numpy as np
import pytest

import treadle.runtime.cpu  # noqa: F401  (the device)
from treadle import random
from treadle.base.errors import DeviceError
from treadle.random import Generator, default_generator
from treadle.random.generator import DEFAULT_SEED


def test_counters_are_handed_out_in_order() -> None:
    g = Generator().manual_seed(5)
    assert [g.next_offset(n) for n in (8, 0, 16, 8)] == [
        (5, 0, 0), (5, 0, 8), (5, 0, 8), (5, 0, 24),
    ]  # fmt: skip
    assert g.manual_seed(5, stream=2).next_offset(8) == (5, 2, 0)


def test_seeds() -> None:
    assert Generator().initial_seed() == DEFAULT_SEED
    assert Generator().manual_seed(-1).initial_seed() == (1 << 64) - 1
    g = Generator()
    drawn = {g.seed() for _ in range(3)}
    assert len(drawn) == 3
    assert g.initial_seed() in drawn
    with random.fork_rng():
        assert random.manual_seed(9) is default_generator
        assert random.initial_seed() == 9
        assert random.seed() == random.initial_seed()


@pytest.mark.parametrize("seed", [1 << 64, -(1 << 63) - 1])
def test_a_seed_out_of_range_is_refused(seed: int) -> None:
    with pytest.raises(ValueError, match=r"manual_seed: got the seed .* from -2\*\*63 to 2\*\*64"):
        Generator().manual_seed(seed)


def test_state_goes_out_and_in() -> None:
    g = Generator().manual_seed(3, stream=4)
    g.next_offset(40)
    state = g.get_state()
    assert state.numpy().dtype == np.uint8
    assert state.numpy().tobytes() == b"".join(n.to_bytes(8, "little") for n in (3, 4, 40))
    expected = random.rand(5, generator=g).tolist()
    other = Generator()
    other.set_state(state)
    assert random.rand(5, generator=other).tolist() == expected


def test_a_wrong_state_is_refused() -> None:
    with pytest.raises(TypeError, match=r"set_state: got float32 of shape \(3,\); expected"):
        Generator().set_state(random.rand(3))


def test_the_default_state_and_fork_rng() -> None:
    with random.fork_rng():
        random.manual_seed(1)
        state = random.get_rng_state()
        first = random.randn(3).tolist()
        with random.fork_rng():
            random.manual_seed(77)
            random.rand(100)
        after = random.randn(3).tolist()
        with random.fork_rng(enabled=False):
            random.rand(100)
        assert random.randn(3).tolist() != after
        random.set_rng_state(state)
        assert [random.randn(3).tolist(), random.randn(3).tolist()] == [first, after]


def test_a_device_that_is_not_there_is_refused() -> None:
    with pytest.raises(DeviceError, match="'cuda'"):
        Generator("cuda")
    with pytest.raises(DeviceError, match="'cuda:1'"), random.fork_rng(["cuda:1"]):
        pass
    assert str(Generator("cpu").device) == "cpu"


def test_threads_never_get_the_same_counters() -> None:
    g = Generator().manual_seed(0)
    taken: list[int] = []

    def take() -> None:
        taken.extend([g.next_offset(8)[2] for _ in range(2000)])

    workers = [threading.Thread(target=take) for _ in range(4)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert sorted(taken) == list(range(0, 4 * 2000 * 8, 8))


def test_copies_go_on_by_themselves() -> None:
    g = Generator().manual_seed(6)
    g.next_offset(16)
    for twin in (copy.deepcopy(g), pickle.loads(pickle.dumps(g))):
        assert twin.next_offset(8) == (6, 0, 16)
    assert repr(g) == "<Generator: seed 6, stream 0, offset 16>"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_can_draw() -> None:
    g = Generator().manual_seed(0)
    child = os.fork()
    if not child:
        os._exit(int(g.next_offset(8)[2] != 0))
    assert os.waitpid(child, 0)[1] == 0
