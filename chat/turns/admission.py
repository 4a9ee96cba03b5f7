"""Who sends a request, and whether the client's requests per minute allow one more: the first that a request costs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeVar

from django.db import connection
from django.db.models import Model

from chat.identity.tokens import Claims
from chat.limits import rates
from chat.limits.status import LimitStatus
from chat.models import ClientToken
from chat.sql import Session
from chat.turns import store
from chat.turns.lanes import Lane

# The digest that stands for CLIENT_API_TOKEN.
SETTING = ""
# What a request proves itself by: the digest of a client token, or what an access token names.
Credential = str | Claims
M = TypeVar("M", bound=Model)


@dataclass(frozen=True)
class Admission:
    """A client, and what is left of its requests per minute; None where they are not limited."""

    client: ClientToken
    status: LimitStatus | None = None


def admit(session: Session, credentials: Sequence[Credential]) -> list[Admission | None]:
    """Find the clients of tokens and of sessions, and take a place in the minute of each.

    None: the token or the session is unknown, expired or revoked.
    """
    asked = Counter(credentials)
    digests = [{"digest": one} for one in asked if isinstance(one, str) and one != SETTING]
    setting = [{"is_setting": True}] if SETTING in asked else []
    claims = [one._asdict() for one in asked if isinstance(one, Claims)]
    # SELECT the tokens, by their digests and by being the setting's; and the sessions, with whose they are.
    by_digest, by_setting, by_session = session.run(
        (store.FIND_CLIENT, digests), (store.FIND_SETTING_CLIENT, setting), (store.FIND_SESSION, claims)
    )
    clients: dict[Credential, ClientToken] = {
        client.digest or SETTING: client for client in map(client_of, [*by_digest, *by_setting])
    }
    people = {client.session.pk: client for client in map(person_of, by_session) if client.session}
    clients |= {one: people[one.session_id] for one in asked if isinstance(one, Claims) and one.session_id in people}
    statuses = {
        credential: take(session, client, asked[credential])
        for credential, client in clients.items()
        if client.is_usable and client.requests_per_minute
    }
    return [
        Admission(clients[one], next(statuses[one]) if one in statuses else None)
        if one in clients and clients[one].is_usable
        else None
        for one in credentials
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
    return instance_of(ClientToken, row)


@lru_cache(maxsize=1000)
def person_of(row: tuple[Any, ...]) -> ClientToken:
    """Make the client as the person of a session may use it."""
    found = []
    for model in store.SESSION_MODELS:
        columns = len(model._meta.concrete_fields)
        found.append(instance_of(model, row[:columns]) if row[0] is not None else None)
        row = row[columns:]
    session, client, person, plan = found
    return client.as_used_by(session, person, plan)  # type: ignore[union-attr, no-any-return]


def instance_of(model: type[M], row: tuple[Any, ...]) -> M:
    fields = model._meta.concrete_fields
    compiler = model._default_manager.all().query.get_compiler(connection=connection)
    converters = compiler.get_converters([field.get_col(model._meta.db_table) for field in fields])
    (values,) = compiler.apply_converters([row], converters)
    return model.from_db(None, [field.attname for field in fields], values)


# Nothing is read before it is written, so each statement is a transaction of its own.
admissions: Lane[Credential, Admission | None] = Lane("admit", admit, is_atomic=False)
