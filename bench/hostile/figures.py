"""The figures of honest clients, and which bounds they break."""

import math
from collections import Counter
from dataclasses import dataclass, field

# Milliseconds after which an honest client gives up. It counts as an error, and as a request that took so long.
GIVE_UP_MS = 10_000.0
# Honest p99 and first byte p99 may be so many times what they are without the hostile, and so much more: a process of
# the machine that runs for one slice of the scheduler's in between is noise.
MOST_TIMES = 2.0
NOISE_MS = 50.0
# What the hostile may add to the memory of one process.
MEMORY_MB = 256.0


@dataclass
class Window:
    """What honest clients saw while one load ran. Milliseconds; MB; cores kept busy."""

    seconds: float = 0.0
    whole: list[float] = field(default_factory=list)  # from the time a request was due to its whole answer
    first: list[float] = field(default_factory=list)  # from the time a stream was due to the first byte of its body
    gaps: list[float] = field(default_factory=list)  # the longest of each stream
    errors: dict[str, int] = field(default_factory=dict)
    ended: int = 0  # requests that were answered in full
    late: list[float] = field(default_factory=list)  # by which the load generator itself woke too late
    memory: float = 0.0
    cores: float = 0.0
    database_cores: float = 0.0
    others: float = 0.0  # cores of programs that have nothing to do with the run

    @classmethod
    def merged(cls, windows: "list[Window]") -> "Window":
        """Put windows together: all samples, the most memory, the mean of the cores."""

        def mean(name: str) -> float:
            return sum([float(getattr(window, name)) for window in windows]) / max(1, len(windows))

        return cls(
            seconds=sum(window.seconds for window in windows),
            whole=[sample for window in windows for sample in window.whole],
            first=[sample for window in windows for sample in window.first],
            gaps=[sample for window in windows for sample in window.gaps],
            errors=dict(sum((Counter(window.errors) for window in windows), Counter())),
            ended=sum(window.ended for window in windows),
            late=[sample for window in windows for sample in window.late],
            memory=max((window.memory for window in windows), default=0.0),
            cores=mean("cores"),
            database_cores=mean("database_cores"),
            others=mean("others"),
        )

    @property
    def per_second(self) -> float:
        return self.ended / self.seconds if self.seconds else math.nan


def percentile(values: list[float], percent: float) -> float:
    """Return the smallest value that so many percent of the values do not exceed; NaN where there is none."""
    ranked = sorted(values)
    return ranked[max(0, math.ceil(len(ranked) * percent / 100) - 1)] if ranked else math.nan


@dataclass
class Outcome:
    """A kind of hostile client: windows without it and with it, in turn, and what became of the processes."""

    kind: str
    connections: int
    quiet: list[Window]
    hostile: list[Window]
    workers: int = 1
    deaths: int = 0  # workers that ended meanwhile
    recovery: float = 0.0  # seconds until the service was quick again, the longest
    answers: dict[str, int] = field(default_factory=dict)  # what the hostile got

    def quiet_p99(self, name: str) -> float:
        """Return the least p99 of the quiet windows: what a hostile leaves behind must not loosen its own bound."""
        return min((percentile(getattr(window, name), 99) for window in self.quiet), default=math.nan)

    def hostile_p99(self, name: str) -> float:
        return percentile(Window.merged(self.hostile).__dict__[name], 99)


def broken(outcome: Outcome, *, memory_mb: float = MEMORY_MB) -> list[str]:
    """Name the bounds that do not hold; none if all do."""
    found = []
    for name, title in (("whole", "p99"), ("first", "first byte")):
        most = MOST_TIMES * outcome.quiet_p99(name) + NOISE_MS
        # Without a sample there is nothing to compare: nobody got an answer.
        if not outcome.hostile_p99(name) <= most:
            found.append(f"{title} over {most:.0f} ms")
    for title, windows in (("with it", outcome.hostile), ("after it", outcome.quiet)):
        for label, count in sorted(Window.merged(windows).errors.items()):
            found.append(f"{count} honest {label} {title}")
    grown = Window.merged(outcome.hostile).memory - outcome.quiet[0].memory
    if grown > memory_mb * outcome.workers:
        found.append(f"memory +{grown:.0f} MB")
    if outcome.deaths:
        found.append(f"{outcome.deaths} processes ended")
    return found
