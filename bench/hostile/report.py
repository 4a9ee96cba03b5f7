"""The table of a run, in Markdown."""

import math
from collections import Counter

from bench.hostile.figures import MEMORY_MB, MOST_TIMES, NOISE_MS, Outcome, Window, broken, percentile
from bench.hostile.kinds import KINDS
from bench.peers.report import MISSING, significant, table

HEAD = [
    *("hostile clients", "connections", "requests/s", "p50 ms", "p99 ms", "first byte p99 ms", "longest gap ms"),
    *("errors", "memory MB", "cores", "PostgreSQL cores", "others", "generator late p99 ms", "recovers s"),
    *("the hostile got", "broken"),
]


def kinds_table() -> str:
    """List the kinds with their sources, connections and what they do."""
    rows = [
        [
            f"`{kind.name}`",
            ", ".join(kind.sources),
            f"{kind.connections:,}{' a process' if kind.is_per_worker else ''}",
            kind.__doc__ or "",
        ]
        for kind in KINDS.values()
    ]
    return table(["kind", "from", "connections", "what it does"], rows)


def pair(quiet: float, hostile: float) -> str:
    """Format a figure without and with the hostile, and their ratio: `160 → 180 (1.1)`."""
    if math.isnan(quiet) or math.isnan(hostile):
        return f"{figure(quiet)} → {figure(hostile)}"
    ratio = f" ({hostile / quiet:.1f})" if quiet else ""
    return f"{figure(quiet)} → {figure(hostile)}{ratio}"


def figure(value: float) -> str:
    return MISSING if math.isnan(value) else significant(value, 3)


def row(outcome: Outcome, memory_mb: float = MEMORY_MB) -> list[str]:
    quiet, hostile = Window.merged(outcome.quiet), Window.merged(outcome.hostile)
    errors = Counter(quiet.errors) + Counter(hostile.errors)
    late = [percentile(window.late, 99) for window in (quiet, hostile)]
    return [
        outcome.kind,
        f"{outcome.connections:,}",
        pair(quiet.per_second, hostile.per_second),
        pair(percentile(quiet.whole, 50), percentile(hostile.whole, 50)),
        pair(outcome.quiet_p99("whole"), outcome.hostile_p99("whole")),
        pair(outcome.quiet_p99("first"), outcome.hostile_p99("first")),
        pair(max(quiet.gaps, default=math.nan), max(hostile.gaps, default=math.nan)),
        counted(errors) or "0",
        pair(outcome.quiet[0].memory, hostile.memory),
        pair(quiet.cores, hostile.cores),
        pair(quiet.database_cores, hostile.database_cores),
        f"{quiet.others:.1f}, {hostile.others:.1f}",
        f"{figure(late[0])}, {figure(late[1])}",
        f"{outcome.recovery:.1f}",
        counted(outcome.answers),
        "; ".join(broken(outcome, memory_mb=memory_mb)) or "no",
    ]


def counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} × {name}" for name, count in sorted(counts.items(), key=lambda item: -item[1])[:4])


def report(outcomes: list[Outcome], facts: str, memory_mb: float = MEMORY_MB) -> str:
    red = sum(bool(broken(outcome, memory_mb=memory_mb)) for outcome in outcomes)
    return f"""{facts}

Figures are those of the honest clients, without → with the hostile (their ratio). Bounds: p99 and first byte p99
at most {MOST_TIMES:g} times what they are without, and {NOISE_MS:.0f} ms; no error; no process ended;
{memory_mb:.0f} MB more memory a process.

{table(HEAD, [row(outcome, memory_mb) for outcome in outcomes])}

{red} of {len(outcomes)} kinds break a bound.
"""
