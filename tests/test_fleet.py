"""The simulation of many machines: answers that are known."""

import numpy as np
import pytest

from udnet.analysis import fleet


@pytest.mark.parametrize("machines", [1, 4, 10])
def test_machines_that_are_the_limit(machines):
    outcome = fleet.simulate(1000, machines, [10.0], 0.0)
    assert outcome.seconds == pytest.approx(10 * 1000 / machines) and outcome.busy == pytest.approx(1)
    assert outcome.limit == fleet.MACHINES


def test_one_process_that_is_the_limit():
    outcome = fleet.simulate(1000, 100, [1.0], 0.1)
    assert outcome.seconds == pytest.approx(100, rel=0.03) and outcome.busy == pytest.approx(0.1, rel=0.03)
    assert outcome.limit == fleet.PROCESS


def test_a_network_that_is_the_limit():
    outcome = fleet.simulate(1000, 100, [1.0], 0.01, 5e6, 1e8)
    assert outcome.seconds == pytest.approx(50, rel=0.05)
    assert outcome.limit == fleet.NETWORK


def test_what_is_at_hand_hides_the_way_there():
    """With one picture alone at a time a machine would wait for the way there and back."""
    waits, hidden = (fleet.simulate(200, 1, [1.0], 0.2, ahead=ahead) for ahead in (1, 2))
    assert waits.seconds == pytest.approx(200 * 1.2, rel=0.01) and hidden.seconds == pytest.approx(200, rel=0.01)


def test_times_that_vary():
    outcome = fleet.simulate(4000, 8, [1.0, 3.0], 0.0)
    assert outcome.seconds == pytest.approx(1000, rel=0.05) and 0.95 < outcome.busy <= 1


def test_more_machines_are_never_slower():
    seconds = [fleet.simulate(500, 2**power, [1.0], 0.01).seconds for power in range(8)]
    assert np.all(np.diff(seconds) < 1e-9)
