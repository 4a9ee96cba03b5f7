"""What must hold after any run, whatever failed in it: checked from our ledger, the upstream's, and the clients'."""

from collections import Counter
from dataclasses import dataclass

from analytics.models import UsageEvent
from bench.openai_double import OpenAIDouble
from chat.models import IdempotencyKey, Message


@dataclass(frozen=True)
class Received:
    """A reply that a client has received whole."""

    conversation_id: str
    key: str  # also the text of the user's message, so that both ledgers name it
    request_id: str
    text: str


def violations(upstream: OpenAIDouble, received: list[Received]) -> dict[str, list[str]]:
    """The invariants by name, each with what breaks it."""
    return {
        "a reply that a client saw is stored, once, beside its message": unstored(received),
        "each upstream call has one usage row, with the upstream's tokens": unaccounted(upstream),
        "no key has two completed turns": double_turns(upstream),
        "all answers to one key are equal": unequal(received),
        "no half turn is stored": half_turns(),
        "nothing stays pending, no key stays held": left_open(),
    }


def unstored(received: list[Received]) -> list[str]:
    replies = Counter(Message.objects.filter(role="assistant").values_list("conversation_id", "request_id", "content"))
    messages = Counter(Message.objects.filter(role="user").values_list("conversation_id", "request_id", "content"))
    return [
        reply.request_id
        for reply in set(received)
        if replies[reply.conversation_id, reply.request_id, reply.text] != 1
        or messages[reply.conversation_id, reply.request_id, reply.key] != 1
    ]


def unaccounted(upstream: OpenAIDouble) -> list[str]:
    called = Counter(request["headers"].get("x-client-request-id") for request in upstream.requests)
    rows = {row.request_id: row for row in UsageEvent.objects.all()}
    wrong = [f"{call} called {times} times" for call, times in called.items() if times != 1]
    wrong += [f"{call} has no row" for call in called if call not in rows]
    for row in rows.values():
        sold = upstream.sold_to.get(row.request_id)
        if (
            row.status == "completed"
            and not row.is_estimated
            and (not sold or row.total_tokens != sold["total_tokens"])
        ):
            wrong.append(f"{row.request_id} counts {row.total_tokens}, sold were {sold}")
    return wrong


def double_turns(upstream: OpenAIDouble) -> list[str]:
    keys = {r["headers"]["x-client-request-id"]: r["body"]["messages"][-1]["content"] for r in upstream.requests}
    completed = UsageEvent.objects.filter(status="completed").values_list("request_id", flat=True)
    turns = Counter(keys[request_id] for request_id in completed if request_id in keys)
    return [f"{key}: {times} turns" for key, times in turns.items() if times > 1]


def unequal(received: list[Received]) -> list[str]:
    answers: dict[str, set[tuple[str, str]]] = {}
    for reply in received:
        answers.setdefault(reply.key, set()).add((reply.request_id, reply.text))
    return [key for key, different in answers.items() if len(different) > 1]


def half_turns() -> list[str]:
    roles: dict[str, list[str]] = {}
    for request_id, role in Message.objects.order_by("id").values_list("request_id", "role"):
        roles.setdefault(request_id, []).append(role)
    completed = set(UsageEvent.objects.filter(status="completed").values_list("request_id", flat=True))
    wrong = [request_id for request_id, found in roles.items() if found != ["user", "assistant"]]
    return [*wrong, *(set(roles) ^ completed)]


def left_open() -> list[str]:
    pending = UsageEvent.objects.pending().values_list("request_id", flat=True)
    held = IdempotencyKey.objects.held().values_list("idempotency_key", flat=True)
    return [*pending, *held]
