"""How many turns this process runs at once, and how many of them one client may."""

from contextlib import ExitStack

from django.conf import settings

from analytics.fairness import Busy, Share
from chat.exceptions import Unavailable
from chat.models import ClientToken

# One client alone leaves a ninth of the places for others.
places = Share(lambda: settings.MAX_RUNNING_TURNS, factor=8)


def acquire_slot(client: ClientToken) -> ExitStack:
    """Take a place among the running turns. The end of the `with` block frees it, unless `pop_all` comes before.

    Raises Unavailable where none is left for the client: a request that waited would only make the queue longer.
    """
    try:
        places.take(client.holder)
    except Busy as exc:
        raise Unavailable("The server runs as many turns as it can; send the request again in a moment.") from exc
    slot = ExitStack()
    slot.callback(release_slot, client)
    return slot


def release_slot(client: ClientToken) -> None:
    places.give_back(client.holder)
