"""Who sends a request, and whether the client's requests per minute allow one more: the first that a request costs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from django.db import connection

from chat.limits import rates
from chat.limits.status import LimitStatus
from chat.models import ClientToken
from chat.sql import Session
from chat.turns import store
from chat.turns.lanes import Lane

# The digest that stands for CLIENT_API_TOKEN.
SETTING = ""


@dataclass(frozen=True)
class Admission:
    """A client, and what is left of its requests per minute; None where they are not limited."""

    client: ClientToken
    status: LimitStatus | None = None


def admit(session: Session, digests: Sequence[str]) -> list[Admission | None]:
    """Find the clients of tokens by their digests, and take a place in its client's minute for each.

    None: the token is unknown, expired or revoked.
    """
    named = [{"digest": digest} for digest in {*digests} - {SETTING}]
    setting = [{"is_setting": True}] if SETTING in digests else []
    # SELECT the tokens, by their digests and by being the setting's.
    by_digest, by_setting = session.run((store.FIND_CLIENT, named), (store.FIND_SETTING_CLIENT, setting))
    clients = {client.digest or SETTING: client for client in map(client_of, [*by_digest, *by_setting])}
    asked = Counter(digests)
    statuses = {
        digest: take(session, client, asked[digest])
        for digest, client in clients.items()
        if client.is_usable and client.requests_per_minute
    }
    return [
        Admission(clients[digest], next(statuses[digest]) if digest in statuses else None)
        if digest in clients and clients[digest].is_usable
        else None
        for digest in digests
    ]


def take(session: Session, client: ClientToken, count: int) -> Iterator[LimitStatus]:
    """Take as many places as there are, up to `count`, and yield the status of each request.

    All are asked for at once, and fewer after a refusal. That of a single place says that there is none.
    """
    key, limit = rates.request_key(client), client.requests_per_minute
    step = min(count, limit)
    while count and step:
        # INSERT or UPDATE the client's bucket.
        (taken,) = session.run((store.ADMIT, [{"key": key, "cost": rates.cost_of(step, limit)}]))
        if not taken:
            step //= 2
            continue
        backlog = taken[0][1]
        for later in reversed(range(step)):
            yield rates.status_of(limit, backlog - rates.cost_of(later, limit), unit="requests")
        count -= step
        step = min(count, step)
    if count:
        # SELECT how full it is.
        refused = rates.status_of(limit, rates.backlog_of(key, session), unit="requests", is_exceeded=True)
        yield from [refused] * count


@lru_cache(maxsize=1000)
def client_of(row: tuple[Any, ...]) -> ClientToken:
    """Make the model of a row as the database returns it. Equal rows are the same client."""
    fields = ClientToken._meta.concrete_fields
    compiler = ClientToken.objects.all().query.get_compiler(connection=connection)
    converters = compiler.get_converters([field.get_col(ClientToken._meta.db_table) for field in fields])
    (values,) = compiler.apply_converters([row], converters)
    return ClientToken.from_db(None, [field.attname for field in fields], values)


# Nothing is read before it is written, so each statement is a transaction of its own.
admissions: Lane[str, Admission | None] = Lane("admit", admit, is_atomic=False)
