"""How long a folder of pictures takes on many machines: a simulation of the queue, from rates that were measured.

One process sends every picture and writes every answer, and is busy for a while with each; a machine enhances one
picture at a time, and has the next one at hand. So either the machines are the limit, or that process, or its network.
"""

import heapq
from typing import NamedTuple

import numpy as np

MACHINES, PROCESS, NETWORK = "the machines", "the process that sends and writes", "its network"


class Outcome(NamedTuple):
    """What a simulation gives."""

    seconds: float  # until the last picture is written
    busy: float  # the share of that time in which the machines enhance, on average
    limit: str  # what limits it


def simulate(pictures, machines, seconds, serial, size=0.0, bandwidth=np.inf, ahead=2, seed=0):
    """The `Outcome` for so many pictures on so many machines.

    `seconds`: a sample of what a machine takes for a picture; `serial`: what the one process takes, half of it to send
    and half to write; `size`: bytes there and back; `bandwidth`: bytes a second of its network; `ahead`: pictures that
    a machine has at hand.
    """
    drawn = np.random.default_rng(seed).choice(np.asarray(seconds, float), pictures)
    half = max(serial, size / bandwidth) / 2  # sending and writing go on while the network carries another picture
    free, sent, ready, ends = 0.0, 0, np.zeros(machines), []

    def send(machine, at):
        nonlocal sent
        ready[machine] = max(ready[machine], at) + drawn[sent]
        heapq.heappush(ends, (ready[machine], machine))
        sent += 1

    for place in range(min(pictures, ahead * machines)):
        free += half
        send(place % machines, free)
    while ends:
        end, machine = heapq.heappop(ends)
        free = max(free, end) + half
        if sent < pictures:
            free += half
            send(machine, free)
    rates = {MACHINES: np.mean(seconds) / machines, PROCESS: serial, NETWORK: size / bandwidth}
    return Outcome(float(free), float(drawn.sum() / machines / free), max(rates, key=rates.get))
