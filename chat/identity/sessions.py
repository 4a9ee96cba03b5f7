"""The life of a session: it is started, refreshed and revoked, and an anonymous person becomes a known one."""

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models.functions import Now

from analytics import ledger
from chat.exceptions import OriginNotAllowed, PersonBlocked, SessionInvalid
from chat.identity import merging, minting, tokens
from chat.identity.providers import Identity
from chat.models import ClientSession, ClientToken, Person, Plan, SigningKey
from chat.sql import retry_deadlocks

# A session that is not refreshed so long is over.
TTL = timedelta(days=30)
# How long the refresh token before the last is taken: for tabs that refresh at once, and for an answer that was lost.
REUSE = timedelta(seconds=10)


@dataclass(frozen=True)
class Granted:
    """A session, and the tokens that stand for it from now on."""

    session: ClientSession
    client: ClientToken  # as the person may use it
    access_token: str
    refresh_token: str

    @classmethod
    def of(cls, session: ClientSession) -> "Granted":
        person = session.person
        client = person.client_token.as_used_by(session, person, plan_of(person))
        access = tokens.sign(session, signing_key(), secrets.token_hex(8))
        return cls(session, client, access, tokens.refresh_token_of(session))


def start_anonymous(client: ClientToken, origin: str) -> Granted:
    """Make a person whom nobody knows yet, and a session."""
    with transaction.atomic():
        person = Person.objects.create(client_token=client)
        return Granted.of(begin(person, origin))


def sign_in(client: ClientToken, identity: Identity, origin: str, anonymous: ClientSession | None) -> Granted:
    """Start a session of the person whom a provider of identities names; an `anonymous` one becomes that person.

    Raises PersonBlocked.
    """
    claimed = Plan.objects.filter(name=identity.plan).first() if identity.plan else None
    return retry_deadlocks(lambda: _sign_in(client, identity, claimed, origin, anonymous))


def _sign_in(
    client: ClientToken, identity: Identity, claimed: Plan | None, origin: str, anonymous: ClientSession | None
) -> Granted:
    with transaction.atomic():
        person, is_new = Person.objects.select_for_update().get_or_create(
            client_token=client,
            issuer=identity.issuer,
            subject=identity.subject,
            defaults={"signed_up_at": Now(), "claimed_plan": claimed},
        )
        if person.is_blocked:
            raise PersonBlocked
        if is_new:
            ledger.record_event("person.signed_up", ledger.Subject("", client.pk, person.pk))
        person.claimed_plan = claimed
        Person.objects.filter(pk=person.pk).update(claimed_plan=claimed, last_seen_at=Now())
        if anonymous:
            merging.merge(anonymous.person_id, person)
        return Granted.of(begin(person, origin))


def plan_of(person: Person) -> Plan | None:
    """Return a person's plan, as the statement that authenticates finds it."""
    app = person.client_token
    return person.plan or person.claimed_plan or (app.anonymous_plan if person.is_anonymous else app.default_plan)


def begin(person: Person, origin: str) -> ClientSession:
    session = ClientSession(person=person, origin=origin, seed=secrets.token_urlsafe(32), expires_at=Now() + TTL)
    session.save(force_insert=True)
    return session


def refresh(client: ClientToken, refresh_token: str, origin: str) -> Granted:
    """Renew both tokens of a session. The token that is sent is not taken again, but for a few seconds.

    Whoever sends an older one has a copy: the session is revoked, for whoever has it (RFC 9700, section 4.14.2).
    Raises SessionInvalid or PersonBlocked.
    """
    with transaction.atomic():
        session, is_current, is_again = find(client, refresh_token, is_locked=True)
        minting.admit_refresh(session.pk)
        if session.origin != origin:
            raise OriginNotAllowed("The session was started at another origin.")
        if is_current:
            session.generation += 1
            changed = {"generation": session.generation, "refreshed_at": Now(), "expires_at": Now() + TTL}
            ClientSession.objects.filter(pk=session.pk).update(**changed)
            Person.objects.filter(pk=session.person_id).update(last_seen_at=Now())
        # Asked twice at once, or because the answer was lost: the token that is current by now is told again.
        elif not is_again:
            revoke(session.pk)
    if not is_current and not is_again:
        raise SessionInvalid("The refresh token was used before, so its session is revoked; sign in again.")
    return Granted.of(session)


def find_anonymous(client: ClientToken, refresh_token: str) -> ClientSession:
    """Find the session whose person signs in. One that an earlier try of this sign-in has merged is found as well.

    Raises SessionInvalid or PersonBlocked.
    """
    session, is_current, is_again = find(client, refresh_token, may_be_merged=True)
    if not is_current and not is_again:
        raise SessionInvalid
    return session


def find(
    client: ClientToken, refresh_token: str, *, is_locked: bool = False, may_be_merged: bool = False
) -> tuple[ClientSession, bool, bool]:
    """Find the session of a refresh token. Raises SessionInvalid or PersonBlocked.

    Returns with it whether the token is the current one, and whether it is the one before, used a moment ago.
    """
    named = tokens.session_of(refresh_token)
    if named is None:
        raise SessionInvalid
    sessions = ClientSession.objects.filter(pk=named[0], person__client_token=client).select_related(
        "person__client_token"
    )
    if is_locked:
        sessions = sessions.select_for_update(of=("self",))
    session = sessions.annotate(now=Now()).first()
    if session is None or not tokens.is_genuine(refresh_token, session, named[1]):
        raise SessionInvalid
    now: datetime = session.now
    is_over = session.revoked_at or session.expires_at <= now
    if is_over and not (may_be_merged and session.person.merged_into_id):
        raise SessionInvalid
    if session.person.is_blocked:
        raise PersonBlocked
    is_again = named[1] == session.generation - 1 and now - session.refreshed_at <= REUSE
    return session, named[1] == session.generation, is_again


def revoke(session_id: str) -> None:
    ClientSession.objects.filter(pk=session_id, revoked_at=None).update(revoked_at=Now())


def signing_key() -> SigningKey:
    """Return the key that signs now; the first is made here."""
    key = SigningKey.objects.filter(retires_at=None).order_by("-created_at").first()
    return key or SigningKey.objects.create()


def rotate_key(*, is_at_once: bool = False) -> SigningKey:
    """Sign with a new key from now on. Tokens of the others are taken as long as they live; or not at all."""
    until = Now() if is_at_once else Now() + timedelta(seconds=tokens.ACCESS_SECONDS + 60)
    with transaction.atomic():
        SigningKey.objects.filter(retires_at=None).update(retires_at=until)
        if is_at_once:
            SigningKey.objects.update(retires_at=until)
        return SigningKey.objects.create()
