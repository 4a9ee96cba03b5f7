"""What a run has in its database before it begins: client tokens, a member of staff and her session.

`python -m bench.hostile.world` makes them in the database that DATABASE_URL names, and prints them as JSON.
"""

import json
import secrets
import sys
from dataclasses import asdict, dataclass, field

HONEST_TOKENS = 6
# Limits that the honest clients never reach; each request must look at all of them.
LIMITS = {
    "rate_limit_per_min": 1_000_000,
    **dict.fromkeys(("tokens_per_min", "day_tokens", "month_tokens", "user_day_tokens"), 10**12),
    **dict.fromkeys(("day_usd", "month_usd"), 1_000_000),
    "concurrent_turns": 10_000,
}


@dataclass(frozen=True)
class World:
    """The credentials of a run. `hostile` has no limits, `limited` a request a minute, `poor` a budget of a token."""

    honest: list[str] = field(default_factory=list)
    hostile: str = ""
    limited: str = ""
    poor: str = ""
    session: str = ""  # of a member of staff
    staff: str = "warden"
    workers: int = 1
    port: int = 0


def create() -> World:
    import django

    django.setup()
    from django.conf import settings
    from django.contrib.auth.models import User
    from django.test import Client

    from chat.models import ClientToken

    def token(name: str, **limits: int) -> str:
        client = ClientToken(name=name, **limits)
        value = client.renew()
        client.save()
        return value

    staff = User.objects.create_superuser(World.staff, password=secrets.token_urlsafe())
    browser = Client(SERVER_NAME="127.0.0.1")
    browser.force_login(staff)
    limits = [LIMITS if number % 2 else {"rate_limit_per_min": 0} for number in range(HONEST_TOKENS)]
    return World(
        honest=[token(f"honest {number}", **own) for number, own in enumerate(limits)],
        hostile=token("hostile", rate_limit_per_min=0),
        limited=token("limited", rate_limit_per_min=1),
        poor=token("poor", rate_limit_per_min=0, day_tokens=1),
        session=browser.cookies[settings.SESSION_COOKIE_NAME].value,
    )


if __name__ == "__main__":
    json.dump(asdict(create()), sys.stdout)
