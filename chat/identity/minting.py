"""How many sessions may be started, exact across threads, processes and nodes (`chat.limits.buckets`).

Each person has limits, so whoever can make people has none: by address, by install and by app only so many are made.
What all anonymous people of an app may spend together is a budget of its own (`chat.limits.budgets`).
"""

from django.utils.crypto import salted_hmac

from chat.exceptions import SessionLimitExceeded
from chat.limits.buckets import Bucket, take, wait_for
from chat.limits.rates import HOUR
from chat.models import ClientToken

# An hour, and a minute.
OF_ADDRESS, OF_INSTALL = 30, 10
FAILURES, REFRESHES = 20, 20


def admit(client: ClientToken, address: str, install_id: str) -> None:
    """Take a place for a new session. Raises SessionLimitExceeded, and takes none, where one is missing."""
    if not client.sessions_per_min:
        raise SessionLimitExceeded("This app starts no sessions now.", should_retry=False)
    buckets = [
        Bucket(f"mint:address:{client.pk}:{digest_of(address)}", OF_ADDRESS, HOUR),
        Bucket(f"mint:app:{client.pk}", client.sessions_per_min),
    ]
    if install_id:
        buckets.append(Bucket(f"mint:install:{client.pk}:{digest_of(install_id)}", OF_INSTALL, HOUR))
    if wait := take_or_wait(buckets):
        raise SessionLimitExceeded(retry_after=wait)


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
