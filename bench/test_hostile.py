"""The parts of the run with hostile clients: what they send, what the honest see, and which bounds that breaks."""

import itertools
import json
import math
from dataclasses import asdict
from typing import Any

import pytest
from gevent import socket

from bench.conftest import OURS, WORLD, Recorder, as_answer, of
from bench.hostile import honest, wire
from bench.hostile.__main__ import ALL, chosen
from bench.hostile.figures import MEMORY_MB, NOISE_MS, Outcome, Window, broken, percentile
from bench.hostile.honest import CLIENTS
from bench.hostile.report import pair, report
from bench.hostile.wire import Wire


def quiet(p99: float = 100.0, memory: float = 150.0, **fields: Any) -> Window:
    return Window(seconds=1, whole=[p99] * 20, first=[p99] * 20, gaps=[9.0], ended=40, memory=memory, **fields)


def outcome(*hostile: Window, **fields: Any) -> Outcome:
    return Outcome("kind/none", 3, [quiet(), quiet()], list(hostile), **fields)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([5, 1, 3], 50, 3), (range(1, 101), 99, 99), (range(1, 102), 99, 100), ([7], 99, 7), ([1, 2], 0, 1)],
)
def test_a_percentile_is_one_of_the_values(values: Any, percent: float, expected: float) -> None:
    assert percentile(list(values), percent) == expected


def test_no_percentile_of_nothing() -> None:
    assert math.isnan(percentile([], 99))


def test_a_bound_holds_up_to_its_last_millisecond() -> None:
    most = 200 + NOISE_MS

    assert broken(outcome(quiet(most))) == []
    assert broken(outcome(quiet(most + 1))) == ["p99 over 250 ms", "first byte over 250 ms"]


def test_what_a_hostile_leaves_behind_does_not_loosen_its_bound() -> None:
    found = Outcome("kind/none", 3, [quiet(), quiet(5000)], [quiet(400)])

    assert broken(found) == ["p99 over 250 ms", "first byte over 250 ms"]


def test_no_answer_at_all_breaks_the_bounds() -> None:
    assert broken(outcome(Window(seconds=1))) == ["p99 over 250 ms", "first byte over 250 ms"]


@pytest.mark.parametrize(
    ("window", "fields", "expected"),
    [
        (quiet(errors={"503": 1}), {}, "1 honest 503 with it"),
        (quiet(memory=150 + MEMORY_MB + 1), {}, "memory +257 MB"),
        (quiet(memory=150 + MEMORY_MB + 1), {"workers": 2}, None),
        (quiet(), {"deaths": 1}, "1 processes ended"),
    ],
)
def test_a_refusal_memory_and_a_death_break_it(window: Window, fields: Any, expected: str | None) -> None:
    assert broken(outcome(window, **fields)) == ([expected] if expected else [])


def test_an_error_after_the_hostile_has_gone_breaks_it() -> None:
    found = Outcome("kind/none", 3, [quiet(), quiet(errors={"timeout": 2})], [quiet()])

    assert broken(found) == ["2 honest timeout after it"]


def test_reports_both_figures_their_ratio_and_what_is_broken() -> None:
    text = report([outcome(quiet(300), answers={"401": 7}), outcome(quiet())], "facts")

    assert pair(100, 300) == "100 → 300 (3.0)"
    assert "| 100 → 300 (3.0)" in text
    assert "p99 over 250 ms; first byte over 250 ms" in text
    assert "7 × 401" in text
    assert "1 of 2 kinds break a bound." in text


def test_windows_come_back_from_their_process_as_they_were() -> None:
    window = quiet(errors={"503": 2})

    assert Window(**json.loads(json.dumps(asdict(window)))) == window
    assert Window.merged([window, window]).errors == {"503": 4}


def test_chooses_kinds_by_name_and_by_source() -> None:
    assert chosen("half-bodies/none,login,all") == ["half-bodies/none", "login/none", ALL]
    assert chosen("half-bodies") == ["half-bodies/token", "half-bodies/none"]
    with pytest.raises(Exception, match="sniffers is no kind"):
        chosen("sniffers")


def test_honest_clients_see_whole_answers(service: Recorder) -> None:
    window = honest.run(of(service), 0.2, 1)

    assert window.errors == {}
    assert window.ended == len(window.whole) + len(window.first) == CLIENTS / 5
    assert abs(len(window.whole) - len(window.first)) <= 1
    assert min([*window.whole, *window.first, *window.gaps]) >= 0
    sent = b"".join(service.seen)
    assert {token for token in OURS if token.encode() in sent} == set(WORLD.honest)
    assert sent.count(b'"conversation_id": "c_1"') == sent.count(b"POST /v1/conversations ") > 0


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        (as_answer(503, b"{}"), "503"),
        (as_answer(200, b"data: [DONE]\n\n", pieces=1), "stream not whole"),
        (b"", "timeout"),
        (b"HTTP/1.1 200 X\r\nContent-Length: 5\r\n\r\nabc", "timeout"),
    ],
)
def test_honest_clients_name_what_went_wrong(
    answer: bytes, label: str, service: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(honest, "GIVE_UP_MS", 50.0)
    window = Window()
    client = honest.Client(1, of(service), window)
    service.answer = lambda _: answer

    client.turn(wire.now_ms())

    assert (window.errors, window.ended, client.idle) == ({label: 1}, 0, [])
    assert window.first == ([50.0] if label == "timeout" else [])


def test_time_runs_from_when_a_request_was_due(service: Recorder) -> None:
    client = honest.Client(0, of(service), Window())
    client.turn(wire.now_ms() - 3000)
    client.close()

    assert client.window.whole[0] >= 3000


def test_a_connection_that_the_server_closed_is_not_used_again(service: Recorder) -> None:
    client = honest.Client(0, of(service), Window())
    ours, theirs = socket.socketpair()
    kept = Wire(service.port)
    kept.socket.close()
    kept.socket = ours
    client.idle.append(kept)
    theirs.close()

    fresh = client.connection()

    assert fresh is not kept
    fresh.close()


def test_reads_answers_one_after_another(service: Recorder) -> None:
    bodies = itertools.cycle([as_answer(200, b"first"), as_answer(200, b"second", pieces=2), as_answer(404, b"")])
    service.answer = lambda _: next(bodies)
    with Wire(service.port) as connection:
        found = []
        for _ in range(3):
            connection.send(wire.request("GET", "/"))
            found.append((connection.answer(), connection.status))

    assert found == [(b"first", 200), (b"second", 200), (b"", 404)]
