"""Medians, ranges and ratios of a run, as Markdown tables."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

from bench.peers.cases import Case
from bench.peers.load import Result
from bench.peers.upstream import CHUNKS

REFERENCE = "litellm"
TITLES = {
    "sqlite": "llmapi, SQLite, 1 process",
    "postgres": "llmapi, PostgreSQL, 2",
    "sqlite-base": "base, SQLite, 1 process",
    "postgres-base": "base, PostgreSQL, 2",
    "litellm": "LiteLLM, 2 workers, no database",
    "portkey": "Portkey, stateless",
    "fastapi": "plain FastAPI, SQLite, 2 workers",
    "floor": "floor: empty view, same call",
}
MISSING = "–"


@dataclass(frozen=True)
class Run:
    """The results of a run, round by round."""

    cases: list[Case]
    peers: list[str]
    results: dict[tuple[str, str], list[Result]]  # (case, peer) -> its rounds

    def record(self, number: int, peer: str, case: Case, result: Result) -> None:
        """Keep what a round has measured, and show it."""
        self.results.setdefault((case.name, peer), []).append(result)
        print(f"round {number}  {case.name:9} {peer:13} {result}", flush=True)

    def values(self, case: str, peer: str, read: Callable[[Result], float | None]) -> list[float]:
        """Return a figure of each round, NaN where there is none. One invalid round makes all of them invalid."""
        rounds = self.results.get((case, peer), [])
        is_valid = not self.problem(case, peer)
        return [found if is_valid and (found := read(r)) is not None else math.nan for r in rounds]

    def ratios(self, case: str, peer: str, read: Callable[[Result], float | None], to: str = REFERENCE) -> list[float]:
        """Return a figure of each round, divided by that of another peer in the same round."""
        return divided(self.values(case, peer, read), self.values(case, to, read))

    def problem(self, case: str, peer: str) -> str:
        return next((r.problem for r in self.results.get((case, peer), []) if r.problem), "")


def divided(values: list[float], by: list[float]) -> list[float]:
    return [a / b if b else math.nan for a, b in zip(values, by, strict=False)]


def own_cpu(result: Result) -> float:
    return result.cpu


def turn_cpu(result: Result) -> float:
    """Return the processor time of a request, with that of PostgreSQL."""
    return result.cpu + (result.postgres_cpu or 0)


def format_figure(values: Iterable[float], digits: int = 3) -> str:
    """Format a median with the range behind it: `4.1 (3.9..4.4)`; a dash if there is none."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return MISSING
    middle, low, high = (significant(value, digits) for value in (median(known), min(known), max(known)))
    return middle if len(known) == 1 or low == high else f"{middle} ({low}..{high})"


def significant(value: float, digits: int) -> str:
    """Format with so many significant digits, or all before the point, and never with an exponent."""
    places = max(0, digits - 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:,.{places}f}"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table whose columns are aligned, so that it reads as well in a terminal."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = [head, ["-" * width for width in widths], *rows]
    return "\n".join(
        f"| {' | '.join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))} |" for line in lines
    )


def ratio_table(run: Run) -> str:
    """Ratios to LiteLLM in the same round. Above 1 is better for requests/s, below 1 for the others."""
    columns: dict[str, Callable[[Result], float | None]] = {
        "requests/s": lambda r: r.per_second,
        "p50": lambda r: r.p50,
        "p99": lambda r: r.p99,
        "first byte": lambda r: r.first_byte,
        "CPU with PostgreSQL": turn_cpu,
        "memory": lambda r: r.memory,
    }
    rows = []
    for case, peer in measured(run):
        if peer != REFERENCE and (case.name, REFERENCE) in run.results:
            figures = [format_figure(run.ratios(case.name, peer, read)) for read in columns.values()]
            rows.append([case.title, TITLES[peer], *figures])
    return table(["case", "peer", *columns], rows)


def figure_table(run: Run) -> str:
    columns: dict[str, Callable[[Result], float | None]] = {
        "requests/s": lambda r: r.per_second,
        "p50 ms": lambda r: r.p50,
        "p99 ms": lambda r: r.p99,
        "first byte ms": lambda r: r.first_byte,
        "CPU ms": lambda r: r.cpu,
        "PostgreSQL CPU ms": lambda r: r.postgres_cpu,
        "cores busy": lambda r: r.cores,
        "others": lambda r: r.others,
        "memory MB": lambda r: r.memory,
    }
    rows = []
    for case, peer in measured(run):
        figures = [format_figure(run.values(case.name, peer, read)) for read in columns.values()]
        rows.append([case.title, TITLES[peer], *figures, run.problem(case.name, peer)])
    return table(["case", "peer", *columns, "invalid"], rows)


def derived_table(run: Run) -> str:
    """What two rows tell together: a turn against its floor, a chunk, both without PostgreSQL; limits; sessions."""
    head = ["peer", "CPU of a turn / floor", "CPU of a chunk, us", "limited / unlimited: requests/s", "CPU"]
    head += ["session / token: requests/s", "CPU"]
    rows = []
    for peer in run.peers:
        turn, stream = run.values("turns", peer, own_cpu), run.values("stream", peer, own_cpu)
        chunk = [1000 * (of_stream - of_turn) / CHUNKS for of_stream, of_turn in zip(stream, turn, strict=False)]
        pair = [
            divided(run.values(case, peer, read), run.values("unlimited", peer, read))
            for case in ("limited", "session")
            for read in (lambda r: r.per_second, turn_cpu)
        ]
        floor = run.ratios("many", peer, own_cpu, to="floor")
        rows.append([TITLES[peer], *map(format_figure, [floor, chunk, *pair])])
    return table(head, rows)


def measured(run: Run) -> Iterable[tuple[Case, str]]:
    return [(case, peer) for case in run.cases for peer in run.peers if (case.name, peer) in run.results]


def report(run: Run, facts: str) -> str:
    """Return the whole report in Markdown: the ratios, what follows from two rows, the figures."""
    return f"""{facts}

Ratios to LiteLLM in the same round, median (min..max):

{ratio_table(run)}

{derived_table(run)}

{figure_table(run)}
"""
