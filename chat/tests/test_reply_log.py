"""The log of a reply: every reader sees every chunk, and nobody waits for what is there."""

import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from chat.exceptions import Unavailable
from chat.turns import reply_log
from chat.turns.reply_log import ReplyLog

CHUNKS = 2000


@pytest.fixture
def hasty_threads() -> Iterator[None]:
    """Threads that interrupt each other as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("hasty_threads")
def test_readers_at_once_see_every_chunk_and_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply_log, "HEARTBEAT_SECONDS", 30)
    for _ in range(5):
        log = ReplyLog()

        def read(log: ReplyLog = log) -> list[bytes]:
            pieces = list(log.read())
            assert all(pieces)
            return [chunk for fresh in pieces for chunk in fresh]

        with ThreadPoolExecutor(8) as pool:
            readers = [pool.submit(read) for _ in range(8)]
            for number in range(CHUNKS):
                log.append({"n": number})
            log.close(usage={"total": 1})
            seen = [reader.result(20) for reader in readers]

        assert all(chunks == [b'{"n":%d}' % number for number in range(CHUNKS)] for chunks in seen)
        assert log.ending() == (b'{"total":1}', None)


def test_a_chunk_that_comes_just_before_a_reader_waits_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply_log, "HEARTBEAT_SECONDS", 10)
    log, original = ReplyLog(), ReplyLog._has_more

    def has_more(self: ReplyLog, seen: int) -> bool:
        had_more = original(self, seen)
        if not self.since(0)[0]:
            self.append({})
        return had_more

    monkeypatch.setattr(ReplyLog, "_has_more", has_more)
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(next, log.read()).result(5) == [b"{}"]


def test_an_end_that_comes_while_chunks_are_taken_is_not_yet_told() -> None:
    class Late(list[bytes]):
        def __getitem__(self, key: Any) -> Any:
            taken = super().__getitem__(key)
            log.append({})
            log.close()
            return taken

    log = ReplyLog()
    log._chunks = Late()

    assert log.since(0) == ([], False)


def test_a_silence_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply_log, "HEARTBEAT_SECONDS", 0.01)
    log = ReplyLog()
    pieces = log.read()

    assert [next(pieces), next(pieces)] == [[], []]
    log.append({})
    assert next(pieces) == [b"{}"]


def test_an_error_ends_a_reader_that_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reply_log, "HEARTBEAT_SECONDS", 30)
    log = ReplyLog()
    threading.Timer(0.05, lambda: log.close(error=Unavailable())).start()

    with pytest.raises(Unavailable):
        next(log.read())
