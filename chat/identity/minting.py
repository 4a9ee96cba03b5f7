"""How many sessions may be started, exact across threads, processes and nodes (`chat.limits.buckets`).

Each person has limits, so whoever can make people has none: by address, by install and by app only so many are made.
What all anonymous people of an app may spend together is a budget of its own (`chat.limits.budgets`).
"""

from django.utils.crypto import salted_hmac

from chat.exceptions import SessionLimitExceeded
from chat.identity.providers import Identity
from chat.limits.buckets import Bucket, take, wait_for
from chat.limits.rates import HOUR
from chat.models import ClientToken

# An hour: people of one installation, and sessions of one person.
OF_INSTALL, OF_SUBJECT = 10, 30
# A minute: failed tries of one address, and refreshes of one session.
FAILURES, REFRESHES = 20, 20


def admit(client: ClientToken, address: str, install_id: str) -> None:
    """Take a place for a new person. Raises SessionLimitExceeded, and takes none, where one is missing."""
    buckets = [
        app_bucket(client),
        Bucket(f"mint:address:{client.pk}:{digest_of(address)}", client.address_sessions_per_hour, HOUR),
        Bucket(f"mint:install:{client.pk}:{digest_of(install_id)}", OF_INSTALL, HOUR),
    ]
    if wait := take_or_wait(buckets):
        raise SessionLimitExceeded(retry_after=wait)


def admit_known(client: ClientToken, identity: Identity) -> None:
    """Take a place for a sign-in. Many people may share an address, so each of them has places of their own."""
    named = digest_of(f"{identity.issuer} {identity.subject}")
    buckets = [app_bucket(client), Bucket(f"mint:subject:{client.pk}:{named}", OF_SUBJECT, HOUR)]
    if wait := take_or_wait(buckets):
        raise SessionLimitExceeded(retry_after=wait)


def app_bucket(client: ClientToken) -> Bucket:
    """Raises SessionLimitExceeded where the app starts no sessions."""
    if not client.sessions_per_min:
        raise SessionLimitExceeded("This app starts no sessions now.", should_retry=False)
    return Bucket(f"mint:app:{client.pk}", client.sessions_per_min)


def admit_refresh(session_id: str) -> None:
    """Take a place for a refresh of the session. Raises SessionLimitExceeded where it was refreshed too often."""
    if wait := take_or_wait([Bucket(f"refresh:{session_id}", REFRESHES)]):
        raise SessionLimitExceeded(retry_after=wait)


def check_failures(address: str) -> None:
    """Raise SessionLimitExceeded where too many sign-ins of this address have failed in the last minute."""
    if wait := wait_for([failures_of(address)]):
        raise SessionLimitExceeded(retry_after=wait)


def note_failure(address: str) -> None:
    """Count a key, a token or a proof that was refused."""
    take([failures_of(address)])


def failures_of(address: str) -> Bucket:
    return Bucket(f"mint:failed:{digest_of(address)}", FAILURES)


def take_or_wait(buckets: list[Bucket]) -> float:
    """Take a place of each bucket; else return the seconds until there is one of each."""
    return 0.0 if take(sorted(buckets)) else max(wait_for(buckets), 1.0)


def digest_of(text: str) -> str:
    """Return a short key for what a stranger has sent: the table holds no addresses, and no long texts."""
    return salted_hmac("chat.identity.minting", text, algorithm="sha256").hexdigest()[:32]
