"""Background jobs: one process does each, and one that fails stops no other."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from django.db import connection
from django.db.models import F
from django.utils import timezone

from analytics.models import UsageEvent
from bench.openai_double import OpenAIDouble
from chat import background
from chat.models import Chore
from conftest import Server, wait_until


def test_each_is_done_when_it_is_due(db: None) -> None:
    def after(**time: int) -> list[str]:
        Chore.objects.update(due_at=F("due_at") - timedelta(**time))
        return background.run_due()

    hourly = ["settle_abandoned", "purge_expired", "rollup", "purge_raw_rows"]
    daily = ["add_ledger_months", "ask_upstream_models"]
    assert background.run_due() == [*hourly, *daily]
    assert after(seconds=1) == []
    assert after(seconds=20) == ["settle_abandoned"]
    assert after(hours=2) == hourly
    assert after(days=1) == [*hourly, *daily]


@pytest.mark.django_db(transaction=True)
def test_one_process_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(background, "JOBS", {"count": background.Job(timedelta(minutes=1), done.append)})

    def run(_: int) -> list[str]:
        try:
            return background.run_due()
        finally:
            connection.close()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(run, range(8)))

    assert len(done) == 1


def test_a_server_closes_what_a_dead_one_left(serve: Callable[..., Server], upstream: OpenAIDouble) -> None:
    long_ago = timezone.now() - timedelta(minutes=1)
    UsageEvent.objects.create(request_id="r_dead", client_token_id=1, user_id="u", model="m", locked_until=long_ago)
    Chore.objects.all().delete()

    serve()

    wait_until(lambda: UsageEvent.objects.get().status == "abandoned")


@pytest.mark.django_db(transaction=True)
def test_a_job_that_fails_stops_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    wrong = background.Job(timedelta(minutes=1), lambda _: 1 / 0)
    monkeypatch.setattr(
        background, "JOBS", {"wrong": wrong, "right": background.Job(timedelta(minutes=1), done.append)}
    )

    background.tick()
    background.tick()

    assert len(done) == 1
