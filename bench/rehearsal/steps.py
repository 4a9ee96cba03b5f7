"""What is done to the service while clients talk, one step after the other."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from bench.calls import call
from bench.openai_double import OpenAIDouble
from bench.rehearsal import trees
from bench.rehearsal.clients import Clients, Turn, ask, connect
from bench.rehearsal.proxy import HOST
from bench.rehearsal.service import Node, manage, refusal
from llmapi.backups.contents import SUMS

NEW_TOKEN = "second-token-of-a-rehearsal-0123456789"  # noqa: S105
NEW_SECRET = "second-of-a-rehearsal-and-of-nothing-else-0123456789"  # noqa: S105
# Longer than the lease of a dead turn, and the retry of a client that waits for it.
LEASE_SECONDS = 120


@dataclass
class Rehearsal:
    scratch: Path
    clients: Clients
    nodes: list[Node]
    upstream: OpenAIDouble
    seconds: float
    notes: list[tuple[str, bool, str]] = field(default_factory=list)
    steps: list[str] = field(default_factory=list)
    excused: set[str] = field(default_factory=set)  # keys of turns in flight on the killed node

    def note(self, what: str, is_right: bool, detail: str = "") -> None:
        self.notes.append((what, is_right, detail))

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Count turns that begin now for this step, which lasts at least `seconds`."""
        began = time.monotonic()
        self.steps.append(name)
        self.clients.step = name
        yield
        time.sleep(max(0.0, self.seconds - (time.monotonic() - began)))

    def run(self, other_database: str, other_upstream: OpenAIDouble) -> None:
        with self.step("fresh tree, two nodes"):
            pass
        self.upgrade()
        self.rotate()
        self.kill()
        self.restore(other_database, other_upstream)

    def upgrade(self) -> None:
        old, env = self.nodes[0].tree, self.nodes[0].env
        new = trees.later(self.scratch / "later")
        with self.step("migrate, while the old version serves"):
            said = refusal(new, env)
            self.note("the new version refuses the old schema by name", "rehearsed" in said, said.strip()[-160:])
            began = time.monotonic()
            manage(new, env, "migrate", "-v0")
            took = time.monotonic() - began
            ready = all('"ready"' in node.says() and trees.OLD in node.says() for node in self.nodes)
            self.note("the old version is ready on the new schema", ready, f"migrated in {took:.1f} s")
            spare = Node("spare", self.scratch / "spare.log")
            spare.start(old, env)
            self.note("the old version also starts on the new schema", trees.OLD in spare.says())
            spare.stop()
        first, second = self.nodes
        with self.step("node A restarted with the new version"):
            first.restart(new, env)
            time.sleep(self.seconds / 2)
            versions = trees.NEW in first.says() and trees.OLD in second.says()
            self.note("both versions serve side by side", versions)
        with self.step("node B restarted with the new version"):
            second.restart(new, env)
            self.note("the new version serves", all(trees.NEW in node.says() for node in self.nodes))

    def rotate(self) -> None:
        old_token, old_secret = self.clients.token, self.nodes[0].env["SECRET_KEY"]
        first = {
            "OPENAI_API_KEY": "sk-second",
            "CLIENT_API_TOKEN": NEW_TOKEN,
            "CLIENT_API_TOKEN_FALLBACKS": old_token,
            "SECRET_KEY_FALLBACKS": NEW_SECRET,
        }
        with self.step("keys rotated: both are taken, node after node"):
            for node in self.nodes:
                node.restart(node.tree, {**node.env, **first})
            asked = len(self.upstream.requests)
            time.sleep(self.seconds / 2)
            keys = {request["headers"]["authorization"] for request in self.upstream.requests[asked:]}
            self.note("the model's provider sees the new key alone", keys == {"Bearer sk-second"}, ", ".join(keys))
        with self.step("clients change to the new token"):
            self.clients.token = NEW_TOKEN
        second = {"CLIENT_API_TOKEN_FALLBACKS": "", "SECRET_KEY": NEW_SECRET, "SECRET_KEY_FALLBACKS": old_secret}
        with self.step("keys rotated: the old token is refused, node after node"):
            for node in self.nodes:
                node.restart(node.tree, {**node.env, **second})
            bearer = f"Bearer {old_token}"
            statuses = {call(node.url, "/v1/models", Authorization=bearer, Host=HOST).status for node in self.nodes}
            self.note("the old token is refused", statuses == {401}, str(statuses))

    def kill(self) -> None:
        node = self.nodes[0]
        with self.step("node A killed (kill -9)"):
            time.sleep(2)
            instant = time.time()
            node.kill()
            deadline = time.monotonic() + LEASE_SECONDS
            while time.monotonic() < deadline and self.unanswered(instant):
                time.sleep(0.5)
            self.excused = self.clients.proxy.keys_in_flight(node.port, instant)
        with self.step("node A started again"):
            node.start(node.tree, node.env)

    def unanswered(self, instant: float) -> list[str]:
        return [turn.key for turn in self.clients.turns if turn.began <= instant and not turn.seconds]

    def restore(self, database: str, upstream: OpenAIDouble) -> None:
        tree, env = self.nodes[0].tree, self.nodes[0].env
        path = self.scratch / "backup"
        elsewhere = Node("elsewhere", self.scratch / "elsewhere.log")
        own = {**env, "DATABASE_URL": database, "OPENAI_BASE_URL": upstream.url, "OPENAI_API_KEY": "sk-elsewhere"}
        with self.step("backup taken"):
            before = self.clients.answered()[-12:]
            manage(tree, env, "backup", str(path))
        with self.step("backup restored elsewhere"):
            manage(tree, own, "restore", str(path))
            ledger = json.loads(path.with_name("backup.json").read_text())["ledger"]
            found = sums_of(database)
            self.note("sums of the ledger are those of the backup", found == tuple(ledger.values()), str(ledger))
            elsewhere.start(tree, own)
            try:
                self.repeat(elsewhere, before, upstream)
            finally:
                elsewhere.end()

    def repeat(self, node: Node, before: list[Turn], upstream: OpenAIDouble) -> None:
        """Repeat turns that the backup holds, then take a new one."""
        sdk = connect(node.url, self.clients.token)
        is_stored = [ask(sdk, turn) for turn in before] == [turn.received for turn in before] and not upstream.requests
        self.note("elsewhere, retries get the stored replies, and the model is not asked", is_stored)
        fresh = ask(sdk, Turn(before[0].conversation_id, "new", is_stream=True))
        self.note("elsewhere, a new turn is answered", fresh.text == "echo: new" and len(upstream.requests) == 1)


def sums_of(database: str) -> tuple[int, ...]:
    columns = ", ".join(f"sum({column})::bigint" for column in SUMS)
    with psycopg.connect(database) as connection:
        (found,) = connection.execute(f"SELECT {columns} FROM usage_events")  # noqa: S608
    return tuple(found)
