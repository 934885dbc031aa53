"""Periodic calls with a fake clock: none overlaps, and what was missed is caught up once."""

from collections.abc import Iterator

import pytest

from cv_factory.processes.periodic import run_periodically


class FakeClock:
    """Clock that moves by what is slept and by what each call takes."""

    def __init__(self, durations: Iterator[float]) -> None:
        self.now, self.calls, self.missed = 1000.0, [0.0][:0], [0][:0]
        self._durations = durations

    def call(self) -> None:
        self.calls.append(self.now - 1000.0)
        try:
            self.now += next(self._durations)
        except StopIteration:
            raise KeyboardInterrupt from None

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self, interval_s: float) -> None:
        with pytest.raises(KeyboardInterrupt):
            run_periodically(
                self.call, interval_s, self.missed.append, lambda: self.now, self.sleep
            )


def test_calls_start_an_interval_apart_however_long_they_take() -> None:
    clock = FakeClock(iter([5.0, 50.0, 0.0]))
    clock.run(100.0)
    assert (clock.calls, clock.missed) == ([0.0, 100.0, 200.0, 300.0], [])


def test_what_a_long_call_missed_is_caught_up_once() -> None:
    clock = FakeClock(iter([350.0, 0.0]))
    clock.run(100.0)
    assert (clock.calls, clock.missed) == ([0.0, 350.0, 450.0], [2])


def test_a_machine_that_slept_makes_one_call() -> None:
    clock = FakeClock(iter([0.0, 0.0]))
    sleep, naps = clock.sleep, iter([5000.0])
    clock.sleep = lambda seconds: sleep(next(naps, seconds))
    clock.run(100.0)
    assert (clock.calls, clock.missed) == ([0.0, 5000.0, 5100.0], [49])


def test_a_step_of_the_clock_backwards_delays_by_no_more_than_the_interval() -> None:
    clock = FakeClock(iter([0.0, -7200.0]))
    clock.run(100.0)
    assert clock.calls == [0.0, 100.0, -7000.0]
