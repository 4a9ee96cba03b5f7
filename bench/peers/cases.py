"""What is measured: how many clients ask for what."""

from dataclasses import dataclass

from bench.peers import upstream


@dataclass(frozen=True)
class Case:
    name: str
    title: str
    clients: int
    seconds: int
    upstream: int = upstream.AT_ONCE  # the port of the double
    is_stream: bool = False
    messages: int = 0  # of the conversation before the turn
    # Of the client token, a row of the table, whose turns name users: "all" or "none". Empty: the setting's token.
    limits: str = ""
    # Ask with the session of a person in the place of a token.
    is_session: bool = False

    @property
    def delay(self) -> int:
        """Seconds that the double takes for a reply."""
        return {upstream.TWO_SECONDS: 2, upstream.THIRTY_SECONDS: 30}.get(self.upstream, 0)

    @property
    def conversations(self) -> int:
        """How many conversations the load goes round. Each turn adds two messages to one of them."""
        return 1000 if self.messages == 2 else max(200, self.clients)


CASES = [
    Case("one", "1 client", 1, 6),
    Case("many", "64 clients", 64, 10),
    # What a chunk costs is what a stream costs beyond a turn with as many clients.
    Case("turns", "32 clients", 32, 8),
    Case("stream", "32 streams of 60 chunks at once", 32, 10, is_stream=True),
    Case("short", "64 clients, 2 messages before", 64, 8, messages=2),
    Case("long", "64 clients, 200 messages before", 64, 8, messages=200),
    Case("unlimited", "64 clients, a token without limits", 64, 10, limits="none"),
    Case("limited", "64 clients, a token with all limits", 64, 10, limits="all"),
    Case("session", "64 clients, the session of a person", 64, 10, is_session=True),
    Case("slow", "200 streams over 2 s", 200, 12, upstream.TWO_SECONDS, is_stream=True),
    Case("thousand", "1,000 streams over 30 s", 1000, 40, upstream.THIRTY_SECONDS, is_stream=True),
]
