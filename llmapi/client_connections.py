"""The connections that clients have open to one process, of which there can be only so many, and whose they are."""

import time
from collections import Counter, OrderedDict
from itertools import islice
from typing import TYPE_CHECKING

from analytics.fairness import Owner
from analytics.processor import processor

if TYPE_CHECKING:
    from llmapi.client_socket import ClientSocket

# Connections that are kept free for new ones.
SPARE = 50


class ClientConnections:
    """Whoever has the most gives way when they run short.

    Of its connections, the one that has been quiet for longest is closed, or else the request that has waited for
    longest to be parsed is refused. A connection belongs to who sent its last request. `most`: how many can be open.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._count = 0
        self._open: Counter[Owner] = Counter()
        # Those that send nothing that is needed, in the order in which they stopped: since when, and by their owners.
        self._since: OrderedDict[ClientSocket, float] = OrderedDict()
        self._quiet: dict[Owner, OrderedDict[ClientSocket, None]] = {}

    @property
    def is_crowded(self) -> bool:
        return self._count > self._most - SPARE

    def add(self, connected: "ClientSocket") -> None:
        if self.is_crowded and self._open:
            ((largest, _),) = self._open.most_common(1)
            if quiet := self._quiet.get(largest):
                self._hang_up(next(iter(quiet)))
            else:
                processor.refuse_oldest(largest)
        self._count += 1
        self._open[connected.owner] += 1

    def remove(self, connected: "ClientSocket") -> None:
        self._count -= 1
        self._open[connected.owner] -= 1
        if not self._open[connected.owner]:
            del self._open[connected.owner]

    def give(self, connected: "ClientSocket", owner: Owner) -> None:
        """Note that this owner has sent a request on the connection."""
        self.remove(connected)
        self._count += 1
        self._open[owner] += 1

    def has_too_many(self, owner: Owner) -> bool:
        """Tell whether connections run short, and this owner has its equal share of them or more."""
        return self.is_crowded and self._open[owner] * len(self._open) >= self._count

    def quiet(self, connected: "ClientSocket") -> None:
        self._since[connected] = time.monotonic()
        self._quiet.setdefault(connected.owner, OrderedDict())[connected] = None

    def busy(self, connected: "ClientSocket") -> None:
        if self._since.pop(connected, None) is None:
            return
        quiet = self._quiet[connected.owner]
        del quiet[connected]
        if not quiet:
            del self._quiet[connected.owner]

    def hang_up_quiet(self, seconds: float, *, most: int) -> None:
        """Close those that have been quiet for so long, and not more than so many: each takes time from the others."""
        before = time.monotonic() - seconds
        for connected, since in list(islice(self._since.items(), most)):
            if since < before:
                self._hang_up(connected)

    def _hang_up(self, connected: "ClientSocket") -> None:
        # At once, and not when its greenlet has noticed: the next one that is closed must be another.
        self.busy(connected)
        connected.hang_up()
