"""How many passwords may be tried in a minute, exact across threads, processes and nodes (`chat.limits.buckets`).

A try takes a place before its password is hashed. One that was right gives it back. Three buckets limit a browser that
nobody has logged in with: that of its address, that of the user's name, and that of both. So a stranger who tries one
name from many addresses can keep new browsers of that user out as long as they go on. A browser that the user has
logged in with before has a bucket of its own (`devices`), which no stranger can fill.
"""

import unicodedata

from django.utils.crypto import salted_hmac

from chat.limits.buckets import Bucket

# Tries a minute. Those of an address are shared by all behind it, and by all behind a proxy that is not trusted.
OF_NAME_AND_ADDRESS, OF_ADDRESS, OF_NAME, OF_DEVICE = 5, 10, 20, 10


def digest_of(*values: str) -> str:
    """Return a short key for what a stranger has sent: the table holds no names, and no long texts."""
    return salted_hmac("llmapi.login", "\0".join(values), algorithm="sha256").hexdigest()[:32]


def normalise(name: str) -> str:
    """Return what all spellings of a user's name share."""
    return unicodedata.normalize("NFKC", name).casefold()


def buckets_of(address: str, name: str, device: str = "") -> list[Bucket]:
    """Return the buckets that a try needs a place of, in the order of their keys, by which transactions lock rows."""
    name = normalise(name)
    if device:
        return [Bucket(f"login:device:{digest_of(device, name)}", OF_DEVICE)]
    return sorted(
        [
            Bucket(f"login:address:{digest_of(address)}", OF_ADDRESS),
            Bucket(f"login:name:{digest_of(name)}", OF_NAME),
            Bucket(f"login:pair:{digest_of(address, name)}", OF_NAME_AND_ADDRESS),
        ]
    )


def of_user(pk: int) -> Bucket:
    """Return the bucket of a user who is logged in and has to tell the password again."""
    return Bucket(f"login:user:{pk}", OF_NAME_AND_ADDRESS)
