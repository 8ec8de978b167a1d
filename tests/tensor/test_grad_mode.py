"""no_grad, enable_grad and set_grad_enabled: nested, as decorators, in threads."""

import threading

import pytest

import treadle


def leaf(data):
    return treadle.tensor(data, requires_grad=True)


def test_modes_nest_and_end_with_an_error():
    assert treadle.is_grad_enabled()
    with treadle.no_grad():
        assert not treadle.is_grad_enabled()
        with treadle.enable_grad():
            assert treadle.is_grad_enabled()
            with treadle.set_grad_enabled(False):
                assert not treadle.is_grad_enabled()
            assert treadle.is_grad_enabled()
        assert not treadle.is_grad_enabled()
    with pytest.raises(KeyError), treadle.no_grad():
        raise KeyError
    assert treadle.is_grad_enabled()


def test_modes_decorate_functions():
    x = leaf([1.0])

    @treadle.no_grad()
    def without():
        return x * 2

    @treadle.enable_grad()
    def within():
        return x * 2

    @treadle.no_grad
    def bare():
        """What it does."""
        return treadle.is_grad_enabled()

    assert not without().requires_grad
    assert within().requires_grad
    with treadle.no_grad():
        assert within().requires_grad
    assert bare() is False
    assert bare.__doc__ == "What it does."
    assert treadle.is_grad_enabled()


def test_a_decorated_function_may_call_itself():
    @treadle.no_grad()
    def down(n):
        return [treadle.is_grad_enabled()] + (down(n - 1) if n else [])

    assert down(3) == [False] * 4
    assert treadle.is_grad_enabled()


def test_a_decorated_generator_is_without_gradients_while_it_runs():
    x = leaf([1.0])

    @treadle.no_grad()
    def batches():
        for _ in range(2):
            yield x * 2

    for y in batches():
        assert not y.requires_grad
        assert treadle.is_grad_enabled()


def test_one_context_used_again_and_inside_itself():
    off = treadle.no_grad()
    with off:
        with off:
            assert not treadle.is_grad_enabled()
        assert not treadle.is_grad_enabled()
    assert treadle.is_grad_enabled()


def test_set_grad_enabled_as_a_switch():
    treadle.set_grad_enabled(False)
    try:
        assert not (leaf([1.0]) * 2).requires_grad
    finally:
        treadle.set_grad_enabled(True)
    assert (leaf([1.0]) * 2).requires_grad


def test_a_mode_holds_in_its_own_thread_only():
    seen = []
    with treadle.no_grad():
        worker = threading.Thread(target=lambda: seen.append(treadle.is_grad_enabled()))
        worker.start()
        worker.join()
    assert seen == [True]


def test_requires_grad_may_be_asked_for_under_no_grad():
    with treadle.no_grad():
        x = treadle.ones(2).requires_grad_()
        y = x * 2
    assert x.requires_grad
    assert x.is_leaf
    assert not y.requires_grad


def test_set_grad_enabled_as_a_decorator_changes_nothing_by_itself():
    @treadle.set_grad_enabled(False)
    def without():
        return treadle.is_grad_enabled()

    assert treadle.is_grad_enabled()
    assert without() is False
    assert treadle.is_grad_enabled()


def test_a_decorated_generator_gets_what_is_sent_and_thrown():
    log = []

    @treadle.no_grad()
    def echo():
        received = yield "start"
        log.append((received, treadle.is_grad_enabled()))
        try:
            yield received
        except KeyError:
            log.append(("thrown", treadle.is_grad_enabled()))
            yield "after"
        finally:
            log.append(("closed", treadle.is_grad_enabled()))
        return "end"

    generator = echo()
    assert next(generator) == "start"
    assert generator.send(5) == 5
    assert generator.throw(KeyError()) == "after"
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == "end"
    assert log == [(5, False), ("thrown", False), ("closed", False)]

    abandoned = echo()
    next(abandoned), abandoned.send(1)
    abandoned.close()
    assert log[-1] == ("closed", False)
    assert treadle.is_grad_enabled()
