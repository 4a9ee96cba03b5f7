"""The model of throughput, at the points where its limits change."""

import pytest

from bench.capacity import Prediction, Turn, on_one_machine, on_several_machines

TURN = Turn(python=8, postgres=2)


def test_one_process_takes_one_core() -> None:
    assert on_one_machine(TURN, processes=1, cores=4) == Prediction(125, "processes")


def test_all_share_the_cores_of_a_machine() -> None:
    assert on_one_machine(TURN, processes=4, cores=2) == Prediction(200, "cores")


def test_what_else_runs_there_takes_its_part() -> None:
    turn = Turn(python=8, postgres=2, others=10)

    assert on_one_machine(turn, processes=4, cores=2) == Prediction(100, "cores")


def test_nodes_add_up() -> None:
    found = on_several_machines(TURN, nodes=3, processes=2, cores=4, database_cores=4)

    assert found == Prediction(750, "processes")


def test_a_node_has_no_more_than_its_cores() -> None:
    found = on_several_machines(TURN, nodes=3, processes=8, cores=2, database_cores=4)

    assert found == Prediction(750, "cores")


def test_one_database_serves_all_nodes() -> None:
    found = on_several_machines(TURN, nodes=20, processes=4, cores=4, database_cores=4)

    assert found == Prediction(2000, "database")


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_a_process_more_never_slows(processes: int) -> None:
    fewer, more = (on_one_machine(TURN, processes=number, cores=2) for number in (processes, processes + 1))

    assert more.requests_per_second >= fewer.requests_per_second
