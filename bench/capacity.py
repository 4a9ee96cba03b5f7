"""Predict requests/s from what a turn takes of processors: a process takes one core at most, and all share the cores.

    python -m bench.capacity --python 28 --postgres 7.5 --processes 2 --cores 2
    python -m bench.capacity --python 28 --postgres 7.5 --nodes 4 --processes 4 --cores 4 --database-cores 8

The figures of a turn are those of `python -m bench.scale`. The model knows of no waiting: for locks, disks, the network
or the model's provider. So it is a ceiling, and it holds where turns at once are many.
"""

import argparse
from dataclasses import dataclass


@dataclass(frozen=True)
class Turn:
    """Milliseconds of processor time of one turn, by who spends it."""

    python: float
    postgres: float
    others: float = 0  # on the same machine: load generator, PgBouncer, proxy


@dataclass(frozen=True)
class Prediction:
    requests_per_second: float
    limited_by: str


def on_one_machine(turn: Turn, *, processes: int, cores: float) -> Prediction:
    """Predict a machine that runs everything. `cores` are those that are left to it, so a fraction may be."""
    limits = {
        "processes": processes * 1000 / turn.python,
        "cores": cores * 1000 / (turn.python + turn.postgres + turn.others),
    }
    return smallest(limits)


def on_several_machines(turn: Turn, *, nodes: int, processes: int, cores: float, database_cores: float) -> Prediction:
    """Predict nodes of `cores` cores and `processes` processes each, on one PostgreSQL on a machine of its own."""
    busy = min(processes, cores * turn.python / (turn.python + turn.others))
    limits = {
        "processes" if processes <= busy else "cores": nodes * busy * 1000 / turn.python,
        "database": database_cores * 1000 / turn.postgres,
    }
    return smallest(limits)


def smallest(limits: dict[str, float]) -> Prediction:
    name = min(limits, key=limits.__getitem__)
    return Prediction(limits[name], name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", type=float, required=True, help="milliseconds of a turn in Python")
    parser.add_argument("--postgres", type=float, required=True, help="milliseconds of a turn in PostgreSQL")
    parser.add_argument("--others", type=float, default=0, help="milliseconds of a turn in PgBouncer or a proxy")
    parser.add_argument("--nodes", type=int, default=1)
    parser.add_argument("--processes", type=int, required=True, help="of one node")
    parser.add_argument("--cores", type=float, required=True, help="of one node")
    parser.add_argument("--database-cores", type=float, help="of PostgreSQL's own machine (none: it is on the node)")
    args = parser.parse_args()
    turn = Turn(args.python, args.postgres, args.others)
    if args.database_cores is None:
        found = on_one_machine(turn, processes=args.nodes * args.processes, cores=args.cores)
    else:
        found = on_several_machines(
            turn, nodes=args.nodes, processes=args.processes, cores=args.cores, database_cores=args.database_cores
        )
    print(f"{found.requests_per_second:.0f} requests/s, limited by: {found.limited_by}")


if __name__ == "__main__":
    main()
