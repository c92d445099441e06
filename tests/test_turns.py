"""Threads that share one network: the order in which they are served, the same pictures, one limit for all."""

import subprocess
import sys
import threading

import numpy as np
import pytest
from conftest import REPO, soon

from udnet.network import prepared
from udnet.pictures import reference
from udnet.system import guard
from udnet.system.memory import MIB
from udnet.system.turns import Turns
from udnet.variants import compared


def started(run, *arguments):
    """A thread that has been started; it ends with the tests."""
    thread = threading.Thread(target=run, args=arguments, daemon=True)
    thread.start()
    return thread


def ended(*threads):
    """Whether they all end soon."""
    for thread in threads:
        thread.join(20)
    return not any(thread.is_alive() for thread in threads)


# The order


def test_whoever_has_waited_longest_is_next():
    turns, served, told = Turns(), [], []

    def ask(name):
        with turns.own(told.append):
            served.append(name)

    with turns.own():
        threads = []
        for count, name in enumerate("abc", 2):
            threads.append(started(ask, name))
            assert soon(lambda: len(turns._queue) == count)  # noqa: B023 - it is asked here
        assert soon(lambda: set(told) == {1, 2, 3}), "each is told how many are before it"
    with turns.own():
        assert served == ["a", "b", "c"], "who has just been served comes after those that wait"
    assert ended(*threads)


def test_one_that_is_told_to_leave_gives_way():
    class Gone(BaseException):
        """As Streamlit raises it."""

    def leave(count):
        raise Gone

    turns = Turns()
    with turns.own(leave), pytest.raises(Gone), turns.own(leave):
        pass
    assert not turns._queue


def test_one_that_fails_or_stops_waiting_gives_way(monkeypatch):
    turns, served = Turns(), []

    def ask():
        with turns.own():
            served.append("well")

    with pytest.raises(MemoryError), turns.own():
        raise MemoryError
    with turns.own():
        waiting = started(ask)
        assert soon(lambda: len(turns._queue) == 2)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(turns._changed, "wait_for", interrupted)
            with turns.own():
                served.append("never")
    assert ended(waiting)
    assert served == ["well"] and not turns._queue


def interrupted(*_):
    raise KeyboardInterrupt


# One tiled network for all threads


@pytest.fixture(scope="module")
def tiled():
    files = {form: prepared.prepared(prepared.find("seeded"), form) for form in ("inference", "arrays")}
    return {
        "pytorch": compared.load_pytorch_tiled(2, files["inference"]),
        "onnx": compared.load_onnx_tiled(2, files["arrays"]),
    }


@pytest.mark.parametrize("runtime", ["pytorch", "onnx"])
def test_every_thread_gets_what_its_own_picture_gives_alone(tiled, runtime, monkeypatch):
    pictures = [reference.picture(48 + 8 * place, 136 - 8 * place, place) for place in range(4)]
    expected = [tiled[runtime].enhance(one) for one in pictures]
    network, running, answers = tiled[runtime], [], {}
    plan, end_picture = network.plan, network.new.end_picture

    def begin(*about):
        running.append(len(running))
        return plan(*about)

    def end():
        end_picture()
        assert running.pop() == 0, "a picture was planned while another one ran"

    def run(place):
        for turn in range(3):
            answers[place, turn] = network.enhance(pictures[place])

    monkeypatch.setattr(network, "plan", begin)
    monkeypatch.setattr(network.new, "end_picture", end)
    assert ended(*[started(run, place) for place in range(4)])
    assert len(answers) == 12
    for (place, _), answer in answers.items():
        np.testing.assert_array_equal(answer, expected[place])


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_picture_that_fails_lets_the_next_one_run(tiled, error):
    network, answers = tiled["onnx"], []
    pixels, begun = reference.picture(32, 64), threading.Event()
    expected = network.enhance(pixels)
    waiting = []

    def read(rows, columns):
        if not begun.is_set():
            begun.set()
            waiting.append(started(lambda: answers.append(network.enhance(pixels))))
            assert soon(lambda: len(network.turns._queue) == 2)
        raise error

    with pytest.raises(error):
        network._run(32, 64, read, None)
    assert ended(*waiting)
    np.testing.assert_array_equal(answers, [expected])


ASKED_AT_ONCE = """
import hashlib, sys, threading
import udnet
from udnet.pictures import reference
from udnet.system import memory

threads, limit, weights = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] or None
enhance = udnet.load("onnx-tiled", weights, 2, limit)
assert enhance.network.plan(384, 512).bytes > 0.7 * (limit - enhance.network.floor), "there is no room for two"
answers = set()

def run(place):
    answers.add((place % 2, hashlib.sha256(enhance(reference.picture(384, 512, place % 2))).hexdigest()))

asking = [threading.Thread(target=run, args=(place,)) for place in range(threads)]
for one in asking: one.start()
for one in asking: one.join()
print(len(answers), memory.lifetime_peak())
"""


def test_together_they_keep_to_the_limit(any_weights):
    """The kernel's own; the pictures are the program's, which needs so much more."""
    threads = 8
    if not guard.ControlGroup.possible():
        pytest.skip("this process may not make a memory control group")
    limit, pictures = 144 * MIB, 2 * threads * 384 * 512 * 3
    command = [sys.executable, "-c", ASKED_AT_ONCE, str(threads), str(limit), any_weights or ""]
    with guard.limit(limit + pictures) as group:
        run = subprocess.run(group.command(command), cwd=REPO, capture_output=True, text=True)
        assert not group.killed
    assert run.returncode == 0, run.stderr
    answers, peak = map(int, run.stdout.split())
    assert answers == 2, "each picture has one"
    assert peak <= limit + pictures, "libraries too, that the kernel has counted for another process"
