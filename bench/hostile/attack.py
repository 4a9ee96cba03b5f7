"""Hostile clients, in a process of their own that gets only what processor time the others leave.

`python -m bench.hostile.attack WORLD KINDS SHARE` (JSON, names, a number up to 1) reads a word from each line:
`prepare`, `start`, `stop`. After each it prints what the hostile clients have been answered since the start, as JSON.
"""

import json
import os
import resource
import sys
from collections import Counter

import gevent

from bench.hostile.kinds import KINDS, Kind
from bench.hostile.world import World


def connections_of(kind: Kind, share: float = 1.0) -> int:
    most = kind.connections * (kind.world.workers if kind.is_per_worker else 1)
    return max(1, round(most * share))


class Attack:
    """Some kinds at once; `share` of the connections of each."""

    def __init__(self, kinds: list[Kind], share: float) -> None:
        self.kinds, self.share = kinds, share
        self.jobs: list[gevent.Greenlet[..., None]] = []

    def prepare(self) -> None:
        for kind in self.kinds:
            kind.prepare()

    def start(self) -> None:
        for kind in self.kinds:
            kind.answers.clear()
            self.jobs += [gevent.spawn(kind.run, number) for number in range(connections_of(kind, self.share))]

    def stop(self) -> None:
        """End all clients. Their connections are closed."""
        gevent.killall(self.jobs)
        self.jobs = []

    def answers(self) -> dict[str, int]:
        return dict(sum((kind.answers for kind in self.kinds), Counter()))


def make(world: World, names: list[str]) -> list[Kind]:
    """Make the kinds of these names, each `kind/source`."""
    parts = [name.partition("/") for name in names]
    return [KINDS[kind](world, source) for kind, _, source in parts]


def main() -> None:
    # The service and the honest clients come first: what is measured is not who wins the processor.
    os.nice(19)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    world = World(**json.loads(sys.argv[1]))
    attack = Attack(make(world, sys.argv[2].split(",")), float(sys.argv[3]))
    # The clients go on while this waits for the next word.
    while word := gevent.get_hub().threadpool.apply(sys.stdin.readline):
        {"prepare": attack.prepare, "start": attack.start, "stop": attack.stop}[word.strip()]()
        print(json.dumps(attack.answers()), flush=True)


if __name__ == "__main__":
    main()
