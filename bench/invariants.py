"""What must hold after any run, whatever failed in it: checked from our ledger, the upstream's and the clients'."""

from collections import Counter

from django.db.models import F

from analytics.models import UsageEvent
from analytics.models.ledger import UsageEventQuerySet
from bench.openai_double import OpenAIDouble
from bench.talkers import Admitted, Received, Talk
from chat.models import Budget, ClientToken, IdempotencyKey, Message


def violations(upstream: OpenAIDouble, talk: Talk, rate_limit: int) -> dict[str, list[str]]:
    """Return what breaks each invariant, by its name. `limit` is that of the client that has one."""
    return {
        "a reply that a client saw is stored, once, beside its message": unstored(talk.received),
        "each upstream call has one usage row, with the upstream's tokens": unaccounted(upstream),
        "no key has two completed turns": double_turns(upstream),
        "all answers to one key are equal": unequal(talk.received),
        "no half turn is stored": half_turns(),
        "nothing stays pending, no key stays held": left_open(),
        "no limit admits more than it allows": over_the_limit(talk.admitted, rate_limit),
        "budgets count what the ledger counts, and are not overrun": wrong_budgets(),
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


def in_conversations() -> UsageEventQuerySet:
    """Return the turns that have a key and leave messages. All others are of the client with a budget."""
    return UsageEvent.objects.exclude(conversation_id="")


def double_turns(upstream: OpenAIDouble) -> list[str]:
    keys = {r["headers"]["x-client-request-id"]: r["body"]["messages"][-1]["content"] for r in upstream.requests}
    completed = in_conversations().filter(status="completed").values_list("request_id", flat=True)
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
    completed = set(in_conversations().filter(status="completed").values_list("request_id", flat=True))
    wrong = [request_id for request_id, found in roles.items() if found != ["user", "assistant"]]
    return [*wrong, *(set(roles) ^ completed)]


def left_open() -> list[str]:
    pending = UsageEvent.objects.pending().values_list("request_id", flat=True)
    held = IdempotencyKey.objects.held().values_list("idempotency_key", flat=True)
    return [*pending, *held]


def over_the_limit(admitted: list[Admitted], limit: int) -> list[str]:
    """Return what exceeds GCRA: in any span of time, a burst of `limit` and one more for each interval of the span.

    A request counts for a span when it was sent and answered within it, so that it was certainly admitted there.
    """
    wrong = []
    starts = sorted(request.sent for request in admitted)
    for start in starts:
        within = sorted(request.answered for request in admitted if request.sent >= start)
        for number, end in enumerate(within, 1):
            if number > limit + (end - start) * limit / 60:
                wrong.append(f"{number} in {end - start:.1f} s")
    return wrong


def wrong_budgets() -> list[str]:
    wrong = [f"{row} counts {row.used} turns that run" for row in Budget.objects.filter(unit="turns").exclude(used=0)]
    wrong += [f"{row} has used {row.used} of {row.most}" for row in Budget.objects.filter(used__gt=F("most"))]
    for client in ClientToken.objects.filter(day_tokens__isnull=False):
        counted = sum(Budget.objects.filter(client_token=client, unit="tokens").values_list("used", flat=True))
        rows = UsageEvent.objects.filter(client_token_id=client.pk)
        spent = sum(rows.values_list("total_tokens", flat=True))
        reserved = rows.exclude(reserved_json=None).values_list("reserved_json", flat=True)
        unknown = sum(amount for row in reserved for key, amount in (row or {}).items() if ":tokens:" in key)
        if counted != spent + unknown:
            wrong.append(f"{client} counts {counted}, its ledger {spent} and {unknown} of dead turns")
    return wrong
