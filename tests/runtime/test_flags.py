"""The flag registry: types, texts of errors, contexts, the environment."""

import os

import pytest

from treadle.base.flags import Flags, flags


def test_defaults_and_types():
    fresh = Flags({"XDG_CACHE_HOME": "ignored here"})
    assert fresh.NUM_THREADS == 0
    assert not fresh.DEBUG
    assert fresh.HUGE_PAGES is True
    assert fresh.PENDING_NODES >= 1
    assert fresh.PENDING_BYTES >= 1
    assert all(row["value"] == row["default"] for row in fresh.table())
    assert os.path.isabs(fresh.CACHE_DIR)


def test_environment_is_parsed():
    fresh = Flags(
        {
            "TREADLE_NUM_THREADS": "3",
            "TREADLE_DEBUG": "time, graph",
            "TREADLE_HUGE_PAGES": "off",
            "TREADLE_CACHE_DIR": "~/kernels",
            "TREADLE_VECTOR_BITS": "",
        }
    )
    assert fresh.NUM_THREADS == 3
    assert sorted(fresh.DEBUG) == ["graph", "time"]
    assert fresh.HUGE_PAGES is False
    assert fresh.VECTOR_BITS == 0
    assert os.path.expanduser("~/kernels") == fresh.CACHE_DIR


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("TREADLE_NUM_THREADS", "many", "expected a whole number from 0 to 4096"),
        ("TREADLE_NUM_THREADS", "-1", "expected a whole number from 0 to 4096"),
        ("TREADLE_VECTOR_BITS", "100", "expected one of 0, 128, 256, 512"),
        ("TREADLE_DEBUG", "time,speed", "a comma list out of graph,passes,source"),
        ("TREADLE_HUGE_PAGES", "maybe", "expected one of 1, 0, true, false"),
    ],
)
def test_bad_environment_is_told(variable, text, expected):
    with pytest.raises(ValueError, match=f"the environment variable {variable} is '{text}'.*") as e:
        Flags({variable: text})
    assert expected in str(e.value)


def test_unknown_variable_is_warned_of():
    with pytest.warns(RuntimeWarning, match="TREADLE_NUM_THREAD is ignored: no such flag"):
        Flags({"TREADLE_NUM_THREAD": "1"})


def test_context_restores_also_after_an_error():
    before = flags.NUM_THREADS
    with pytest.raises(KeyError), flags.context(num_threads=7, debug="asm"):
        assert flags.NUM_THREADS == 7
        assert "asm" in flags.DEBUG
        raise KeyError
    assert before == flags.NUM_THREADS
    with pytest.raises(ValueError, match=r"the flag VECTOR_BITS is 5; expected one of"):  # noqa: SIM117
        with flags.context(num_threads=7, vector_bits=5):
            pass
    assert before == flags.NUM_THREADS


def test_unknown_names_are_told_with_the_nearest():
    with pytest.raises(AttributeError, match="no flag 'NUM_THREAD'; did you mean NUM_THREADS"):
        _ = flags.NUM_THREAD
    with pytest.raises(AttributeError, match="no flag 'COLOUR'; the flags are CACHE_DIR"):
        flags.COLOUR = 1
    with (
        pytest.raises(AttributeError, match="no flag 'COLOUR'"),
        flags.context(colour=1),
    ):
        pass


def test_table_lists_every_flag():
    rows = {row["name"]: row for row in flags.table()}
    assert rows["NUM_THREADS"]["variable"] == "TREADLE_NUM_THREADS"
    assert set(rows) == set(Flags.__annotations__)
    assert all(row["help"] and row["expected"] for row in rows.values())
