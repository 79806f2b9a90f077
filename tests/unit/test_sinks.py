"""What waits for a receiver: bounded, the newest state first, nothing lost while it is away.

The thread is the real one; receivers are functions, or sockets in test_posting.py.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Callable, Optional

import pytest
from incidents_made import opened, resolved

from mwtrace.model import Happening, IncidentNews, IncidentType
from mwtrace.tell import sender as sender_module
from mwtrace.tell.sender import Sender
from mwtrace.tell.sinks import BACKOFF_MAX_S, Held, Outbox, Sink, Undelivered, backoff_s

DEADLINE_S = 20.0


def updated(number: int = 1) -> IncidentNews:
    return opened(number)._replace(happening=Happening.UPDATED)


def continues(number: int = 1) -> IncidentNews:
    return opened(number)._replace(happening=Happening.CONTINUES)


def happenings(news: Sequence[IncidentNews]) -> list[tuple[str, Happening]]:
    return [(one.incident.id[-1], one.happening) for one in news]


# -- told once -----------------------------------------------------------------------------------


def test_news_is_handed_over_in_the_order_it_came() -> None:
    outbox = Outbox()
    for number in (1, 2, 3):
        outbox.put(opened(number), float(number))
    told = []
    while batch := outbox.batch(5.0):
        told += batch
        outbox.done(batch, 5.0)
    assert happenings(told) == [(n, Happening.OPENED) for n in "123"]
    assert outbox.due_s(5.0) is None


@pytest.mark.parametrize(
    ("puts", "told"),
    [
        ([opened, updated], Happening.OPENED),
        ([opened, updated, resolved], Happening.RESOLVED),
        ([resolved, updated], Happening.UPDATED),
        ([updated, updated], Happening.UPDATED),
        ([opened, continues], Happening.OPENED),
    ],
)
def test_the_newest_state_takes_the_place_of_an_older_one(
    puts: list[Callable[[], IncidentNews]], told: Happening
) -> None:
    outbox = Outbox()
    for time_s, make in enumerate(puts):
        last = make()
        outbox.put(last, float(time_s))
    (news,) = outbox.batch(9.0)
    assert news.happening is told
    assert news.incident is last.incident
    assert outbox.superseded_total == sum(make is not continues for make in puts[1:])


def test_what_comes_while_another_is_handed_over_is_not_lost() -> None:
    outbox = Outbox()
    outbox.put(opened(), 1.0)
    batch = outbox.batch(1.0)
    outbox.put(updated(), 2.0)
    outbox.done(batch, 3.0)
    assert happenings(outbox.batch(3.0)) == [("1", Happening.UPDATED)]


def test_numbers_that_change_are_no_news_by_themselves() -> None:
    outbox = Outbox()
    outbox.put(continues(), 1.0)
    assert outbox.due_s(1.0) is None


def test_that_no_further_kill_followed_is_no_news_for_those_told_once() -> None:
    outbox = Outbox()
    outbox.put(resolved(type=IncidentType.OOM_KILL), 1.0)
    assert outbox.due_s(1.0) is None


def test_the_longest_waiting_goes_when_there_is_no_room_and_is_counted() -> None:
    outbox = Outbox(incidents_max=2)
    for number in (1, 2, 3):
        outbox.put(opened(number), float(number))
    assert outbox.dropped_total == 1
    assert len(outbox) == 2
    assert happenings(outbox.batch(9.0)) == [("2", Happening.OPENED)]


def test_what_waited_too_long_goes_and_is_counted() -> None:
    outbox = Outbox(keep_s=100.0)
    outbox.put(opened(1), 0.0)
    outbox.put(opened(2), 50.0)
    assert outbox.due_s(101.0) == 50.0
    assert outbox.dropped_total == 1


def test_one_that_fails_lets_the_others_pass() -> None:
    outbox = Outbox()
    outbox.put(opened(1), 1.0)
    outbox.put(opened(2), 1.0)
    outbox.failed(outbox.batch(2.0))
    assert happenings(outbox.batch(3.0)) == [("2", Happening.OPENED)]


# -- renewed -------------------------------------------------------------------------------------


def test_all_that_is_open_is_due_at_once_and_then_at_each_renewal() -> None:
    held = Held(renew_s=60.0)
    held.put(opened(1), 10.0)
    assert held.due_s(10.0) == 10.0
    held.done(held.batch(10.0), 11.0)
    assert held.due_s(11.0) == 71.0
    held.put(continues(2), 12.0)
    assert held.due_s(12.0) == 71.0  # newer numbers can wait
    held.put(opened(3), 13.0)
    assert held.due_s(13.0) == 13.0
    assert [name for name, _ in happenings(held.batch(13.0))] == ["1", "2", "3"]


def test_what_was_resolved_is_renewed_for_a_while_and_then_forgotten() -> None:
    held = Held(renew_s=60.0, keep_resolved_s=900.0)
    held.put(resolved(), 0.0)
    held.done(held.batch(0.0), 0.0)
    assert held.due_s(900.0) == 60.0
    assert held.due_s(901.0) is None


def test_what_was_resolved_is_not_forgotten_before_it_was_told() -> None:
    held = Held(renew_s=60.0, keep_resolved_s=900.0)
    held.put(resolved(), 0.0)
    assert held.due_s(5000.0) == 0.0
    assert happenings(held.batch(5000.0)) == [("1", Happening.RESOLVED)]


def test_news_that_comes_while_all_is_handed_over_is_due_at_once() -> None:
    held = Held(renew_s=60.0)
    held.put(opened(1), 0.0)
    batch = held.batch(0.0)
    held.put(opened(2), 1.0)
    held.done(batch, 2.0)
    assert held.due_s(2.0) == 2.0
    assert len(held) == 1


def test_what_is_resolved_makes_room_for_what_is_open() -> None:
    held = Held(renew_s=60.0, incidents_max=2)
    held.put(opened(1), 0.0)
    held.put(resolved(2), 0.0)
    held.put(opened(3), 0.0)
    assert [name for name, _ in happenings(held.batch(0.0))] == ["1", "3"]
    assert held.dropped_total == 1


# -- the wait between tries ----------------------------------------------------------------------


def test_the_wait_grows_to_a_bound_and_uses_the_whole_range() -> None:
    for failures, longest_s in [(1, 1.0), (2, 2.0), (4, 8.0), (7, 60.0), (1000, BACKOFF_MAX_S)]:
        waits = [backoff_s(failures) for _ in range(400)]
        assert 0 < min(waits) < 0.2 * longest_s
        assert 0.8 * longest_s < max(waits) <= longest_s


@pytest.mark.parametrize(("asked_s", "wait_s"), [(7.0, 7.0), (1e9, 600.0), (0.0, 0.05)])
def test_a_receiver_may_say_when_to_come_again_within_bounds(asked_s: float, wait_s: float) -> None:
    assert backoff_s(1, asked_s) == wait_s


# -- the thread ----------------------------------------------------------------------------------


class Recorder(Sink):
    """A sink that does as its script says, and then takes all."""

    def __init__(self, renew_s: Optional[float] = None, *script: Exception) -> None:
        self.name = "recorder"
        self.renew_s = renew_s
        self.told: list[list[IncidentNews]] = []
        self._script = list(script)
        self._came = threading.Condition()

    def deliver(self, news: Sequence[IncidentNews]) -> None:
        with self._came:
            self.told.append(list(news))
            self._came.notify_all()
            if self._script:
                raise self._script.pop(0)

    def wait_for(self, count: int) -> list[list[IncidentNews]]:
        with self._came:
            assert self._came.wait_for(lambda: len(self.told) >= count, DEADLINE_S), self.told
        return self.told


@pytest.fixture
def send() -> Iterator[Callable[[Recorder], Sender]]:
    started: list[Sender] = []

    def start(sink: Recorder) -> Sender:
        started.append(Sender(sink))
        return started[-1]

    yield start
    for sender in started:
        sender.close()
        assert f"tell {sender.name}" not in [thread.name for thread in threading.enumerate()]


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline_s
        time.sleep(0.005)


Send = Callable[[Recorder], Sender]


def test_a_failure_is_tried_again_until_it_is_told(send: Send, monkeypatch) -> None:
    monkeypatch.setattr(sender_module, "backoff_s", lambda failures, after_s: 0.01)
    down = Undelivered("down", again=True)
    sink = Recorder(None, down, down, down)
    sender = send(sink)
    sender.put(opened())
    assert len(sink.wait_for(4)) == 4
    wait_until(lambda: not sender.pending)
    results = sender.results()
    assert (results["failed"], results["delivered"], sender.failures) == (3, 1, 0)


def test_what_is_refused_for_good_is_counted_and_not_tried_again(send: Send) -> None:
    sink = Recorder(None, Undelivered("no", again=False))
    sender = send(sink)
    sender.put(opened(1))
    sender.put(opened(2))
    assert [happenings(news)[0][0] for news in sink.wait_for(2)] == ["1", "2"]
    wait_until(lambda: sender.results()["delivered"] == 1)
    assert sender.results()["refused"] == 1


def test_a_mistake_in_a_sink_does_not_end_its_thread(send: Send, caplog) -> None:
    sink = Recorder(None, ZeroDivisionError("a mistake"))
    sender = send(sink)
    sender.put(opened(1))
    sink.wait_for(1)
    sender.put(opened(2))
    sink.wait_for(2)
    wait_until(lambda: sender.results()["delivered"] == 1)
    assert sender.results()["refused"] == 1
    assert "recorder was not told" in caplog.text


def test_a_streak_of_failures_is_logged_once_and_so_is_its_end(
    send: Send, caplog, monkeypatch
) -> None:
    monkeypatch.setattr(sender_module, "backoff_s", lambda failures, after_s: 0.001)
    sink = Recorder(None, *[Undelivered("it is down", again=True)] * 50)
    sender = send(sink)
    sender.put(opened())
    sink.wait_for(51)
    wait_until(lambda: not sender.pending)
    assert [record.getMessage() for record in caplog.records] == [
        "recorder was not told: it is down; trying again",
        "recorder is told again",
    ]


def test_what_is_open_is_handed_over_again_and_again(send: Send) -> None:
    sink = Recorder(0.02)
    send(sink).put(opened())
    assert all(happenings(news) == [("1", Happening.OPENED)] for news in sink.wait_for(5))


def test_a_sink_that_hangs_delays_neither_the_daemon_nor_the_end() -> None:
    release = threading.Event()

    class Hanging(Recorder):
        def deliver(self, news: Sequence[IncidentNews]) -> None:
            super().deliver(news)
            release.wait(DEADLINE_S)

    sink = Hanging()
    sender = Sender(sink)
    try:
        sender.put(opened(0))
        sink.wait_for(1)
        began_s = time.monotonic()
        for number in range(1000):
            sender.put(opened(number))
        put_s = time.monotonic() - began_s
        sender.close()
        assert put_s < 1.0  # it is 4 ms; a single wait for the sink would be 20 s
        assert time.monotonic() - began_s < 3.0
        assert sender.results()["dropped"] == 1000 - 256
    finally:
        release.set()


def test_what_waits_at_the_end_gets_a_last_try() -> None:
    sink = Recorder()
    sender = Sender(sink)
    for number in range(20):
        sender.put(opened(number))
    sender.close()
    assert len(sink.told) == 20


def test_a_receiver_that_is_down_does_not_delay_the_end(monkeypatch) -> None:
    monkeypatch.setattr(sender_module, "backoff_s", lambda failures, after_s: 1000.0)
    sink = Recorder(None, Undelivered("down", again=True))
    sender = Sender(sink)
    sender.put(opened())
    wait_until(lambda: sender.failures == 1)
    began_s = time.monotonic()
    sender.close()
    assert time.monotonic() - began_s < 0.9
    assert sender.pending == 1
