"""Variants that do one known thing each: tests name them as FILE.py:NAME, so most need neither runtime."""

import atexit
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from udnet.system import memory
from udnet.variants.compared import VARIANTS
from udnet.variants.variant import Variant

SPIKE = 64 * memory.MIB
HOG = 600 * memory.MIB
LEAK = 8 * memory.MIB


def own(name):
    """What to give for a variant's name, to have the one of that name in this file."""
    return f"{__file__}:{name}"


def variant(name, network, **options):
    """A variant around a network; what it loads is up to the test."""
    return Variant(name, "none", "for tests", options.pop("load", lambda threads, *files: network), **options)


def same(x):
    return x


def load_and_leave_late(threads):
    """A network that is well, in a process that fails once everything is measured."""
    atexit.register(os._exit, 3)
    return same


def brighter(x):
    return x + 1e-3


def darker_when_large(x):
    return x - (0.1 if x.shape[2] >= 64 else 0)


def spike(x):
    memory.plant(SPIKE, 0.015)
    return x


def hog(x):
    blocks = []
    for _ in range(HOG // (8 * memory.MIB)):
        blocks.append(np.ones(8 * memory.MIB, np.uint8))
        time.sleep(0.01)  # for a watchdog to see
    return x


def sleep(x):
    time.sleep(600)


def wait(x):
    """As long as a file is there."""
    while Path(os.environ["WAIT_WHILE"]).exists():
        time.sleep(0.05)
    return x


def slow(x):
    time.sleep(0.4)
    return x


def die_of_white(x):
    if x.min() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def tell(threads):
    """A network whose process has written down its environment."""
    Path(os.environ["TELL"]).write_text(json.dumps(dict(os.environ)))
    return same


def fail(*_):
    raise RuntimeError("the first line\nthe second line")


def no_memory(x):
    raise MemoryError


def chatter(x):
    print('{"phase": "steady", "status": "ok"}\n\x00\xff garbage', flush=True)
    os.write(1, b"\xff\x00 more\n" * 10_000)
    return x


def crash(x):
    print("UserWarning: about something else", file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGSEGV)


def killed(x):
    os.kill(os.getpid(), signal.SIGKILL)


def leave(x, code=0):
    os._exit(code)


def breed(x):
    if not (path := Path(os.environ["BREED_PID"])).exists():
        path.write_text(str(subprocess.Popen(["sleep", "600"], stdin=subprocess.DEVNULL).pid))
    return x


class Leaks:
    """A network that keeps something of every picture."""

    def __init__(self, size):
        self.size, self.kept = size, []

    def __call__(self, x):
        self.kept.append(np.ones(self.size, np.uint8))
        return x


class MixesUp:
    """A network with one place for all pictures: it is well as long as there is one at a time."""

    def __call__(self, x):
        self.x = x
        time.sleep(0.1)
        return self.x


def fail_on_wide(x):
    return fail() if x.shape[3] > x.shape[2] else x


class Staged:
    """A network of two stages; the second holds a spike long enough for samples to see."""

    def begin(self, name):
        """Nobody listens, unless `stages` was called."""

    def __call__(self, x):
        self.begin("before")
        time.sleep(0.1)
        self.begin("spike")
        memory.plant(SPIKE, 0.2)
        return x

    def stages(self, begin):
        self.begin = begin


def without(name, forbidden):
    """A variant of udnet's own that fails when its process has imported the other runtime."""
    own = VARIANTS[name]

    def load(threads, *files):
        network = own.load(threads, *files)

        def watched(x):
            y = network(x)
            loaded = {module.partition(".")[0] for module in sys.modules}
            assert not loaded & forbidden, f"imported {sorted(loaded & forbidden)}"
            assert own.runtime == "onnx" or "torch" in loaded
            return y

        return watched

    return replace(own, name=f"{name}-alone", load=load)


SAME = variant("same", same)
SPIKES = variant("spikes", spike)
HOGS = variant("hogs", hog)
SLEEPS = variant("sleeps", sleep)
SLOW = variant("slow", slow)
DIES_OF_WHITE = variant("dies-of-white", die_of_white)
TELLS = variant("tells", same, load=tell)
WAITS = variant("waits", wait)
NO_MODULE = variant("no-module", same, imports=("no_such_module",))
FAILS_TO_LOAD = variant("fails-to-load", same, load=fail)
FAILS = variant("fails", fail)
NO_MEMORY = variant("no-memory", no_memory)
CHATTERS = variant("chatters", chatter)
CRASHES = variant("crashes", crash)
KILLED = variant("killed", killed)
LEAVES = variant("leaves", leave)
BREEDS = variant("breeds", breed)
LEAVES_LATE = variant("leaves-late", same, load=load_and_leave_late)
LEAKS = variant("leaks", same, load=lambda threads: Leaks(LEAK))
LEAKS_MUCH = variant("leaks-much", same, load=lambda threads: Leaks(8 * LEAK))
HOLDS = variant("holds", same, load=lambda threads, held=[]: held.append(np.ones(LEAK, np.uint8)) or same)
MIXES_UP = variant("mixes-up", same, load=lambda threads: MixesUp())
FAILS_ON_WIDE = variant("fails-on-wide", fail_on_wide)
STAGED = variant("staged", same, load=lambda threads: Staged())

# with weights, so that a study compares their output with the reference's
REFERENCE = variant("reference", same, forms=("inference",))
ALIKE = variant("alike", same, forms=("inference",))
BRIGHTER = variant("brighter", brighter, forms=("inference",))
DARKER_WHEN_LARGE = variant("darker-when-large", darker_when_large, forms=("inference",))
FAILS_ON_WEIGHTS = variant("fails-on-weights", fail, forms=("inference",))

PYTORCH_ALONE = without("pytorch", {"onnxruntime", "onnx", "pandas", "matplotlib", "PIL"})
ONNX_ALONE = without("onnx", {"torch", "onnx", "pandas", "matplotlib", "PIL"})

NOT_A_VARIANT = "a string"
NAMED_AS_ANOTHER = variant("onnx-lean", same)
