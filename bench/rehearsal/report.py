"""What clients saw, step by step, and what holds at the end."""

import time
from collections import Counter
from statistics import median
from typing import TYPE_CHECKING

from bench.rehearsal.clients import Turn

if TYPE_CHECKING:
    from bench.rehearsal.steps import Rehearsal

# A running process closes what a dead one left within about a minute after its lease.
RECOVERY_SECONDS = 150


def report(rehearsal: "Rehearsal") -> int:
    """Print what clients saw, what was checked, and the invariants. Returns 1 where anything is wrong."""
    # They need Django, which is set up by now.
    from bench import invariants

    deadline = time.monotonic() + RECOVERY_SECONDS
    while invariants.left_open() and time.monotonic() < deadline:
        time.sleep(1)
    turns, upstream = rehearsal.clients.turns, rehearsal.upstream
    received = [turn.received for turn in turns if turn.received]
    broken = {
        "no turn failed that was not in flight on the killed node": failed(turns, rehearsal.excused),
        "each turn was answered in the end": [turn.key for turn in turns if not turn.received],
        "a reply that a client saw is stored, once, beside its message": invariants.unstored(received),
        "each call to the model has one row in the ledger, with what was sold": invariants.unaccounted(upstream),
        "what was sold and not charged was in flight on the killed node": uncharged(rehearsal),
        "no key has two completed turns": invariants.double_turns(upstream),
        "no half turn is stored": invariants.half_turns(),
        "nothing stays pending, no key stays held": invariants.left_open(),
    }
    print(table_of_steps(rehearsal.steps, turns))
    print("\n| checked | |\n|---|---|")
    for what, is_right, detail in rehearsal.notes:
        print(f"| {what} | {'yes' if is_right else f'NO: {detail}'} |")
    print("\n| invariant | violations |\n|---|---|")
    for what, wrong in broken.items():
        print(f"| {what} | {len(wrong)}{': ' + '; '.join(wrong[:3]) if wrong else ''} |")
    print_killed(rehearsal)
    return 1 if any(broken.values()) or not all(is_right for _, is_right, _ in rehearsal.notes) else 0


def table_of_steps(steps: list[str], turns: list[Turn]) -> str:
    lines = [
        "| step | turns | retried by the SDK | failed after that | median wait | longest wait |",
        "|---|---|---|---|---|---|",
    ]
    for step in steps:
        found = [turn for turn in turns if turn.step == step]
        seconds = [turn.seconds for turn in found] or [0.0]
        retried = sum(turn.sdk_retries > 0 for turn in found)
        failures = sum(bool(turn.failures) for turn in found)
        waits = f"{median(seconds):.1f} s | {max(seconds):.1f} s"
        lines.append(f"| {step} | {len(found)} | {retried} | {failures} | {waits} |")
    return "\n".join(lines)


def failed(turns: list[Turn], excused: set[str]) -> list[str]:
    return [f"{turn.key}: {turn.failures[0]}" for turn in turns if turn.failures and turn.key not in excused]


def uncharged(rehearsal: "Rehearsal") -> list[str]:
    """Return calls that were sold and whose rows say something else, but for those of the killed node."""
    from analytics.models import UsageEvent

    keys = {
        request["headers"].get("x-client-request-id"): request["body"]["messages"][-1]["content"]
        for request in rehearsal.upstream.requests
    }
    charged = set(UsageEvent.objects.filter(status="completed").values_list("request_id", flat=True))
    sold = set(rehearsal.upstream.sold_to) - charged
    return sorted(
        f"{request_id} of {keys[request_id]}" for request_id in sold if keys[request_id] not in rehearsal.excused
    )


def print_killed(rehearsal: "Rehearsal") -> None:
    from analytics.models import UsageEvent

    hit = [turn for turn in rehearsal.clients.turns if turn.key in rehearsal.excused]
    statuses = Counter(UsageEvent.objects.exclude(status="completed").values_list("status", flat=True))
    print(
        f"\nIn flight on the killed node: {len(hit)} turns. {sum(not turn.failures for turn in hit)} were completed by"
        f" the SDK's own retries, {sum(bool(turn.failures) for turn in hit)} by the same request again."
        f" Rows of the ledger that are not completed: {words(statuses) or 'none'}."
    )
    for turn in rehearsal.clients.turns:
        for failure in turn.failures:
            print(f"- {turn.step}, {turn.key}: {failure}")


def words(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
