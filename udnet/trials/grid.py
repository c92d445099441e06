"""Which trials a study consists of, and in which order they run."""

import hashlib
import random
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from udnet import PARITY_LIMIT, Error
from udnet.network import prepared
from udnet.pictures import images
from udnet.system import machine
from udnet.trials.trial import STEADY_RUNS, TIMEOUT_SECONDS, Trial, check, feed
from udnet.variants import catalogue

GRIDS = Path(__file__).parent / "grids"
PARITY_SIZE = (264, 136)


@dataclass(frozen=True)
class Grid:
    """The trials of a study, in the order in which they run."""

    name: str
    trials: list[Trial]
    seed: int
    timeout_seconds: float = TIMEOUT_SECONDS
    sha256: str = ""
    parity_limit: float = PARITY_LIMIT  # a variant whose output differs by more is not measured
    parity_sizes: tuple[tuple[int, int], ...] = (PARITY_SIZE,)  # of the pictures whose outputs are compared


def read_grid(name, weights=None, model=None, inputs=()):
    """A grid by name (`quick`, `full`) or from a TOML file: see the grids in `udnet/trials/grids` for what it may say.

    Trials are interleaved: all first repeats in a seeded random order, then all second ones. `weights`: for the trials
    that name none; `model`: an ONNX file for them in place of UDnet, by those of the variants that take one; `inputs`:
    shapes of its further inputs, where they are free, as NAME=SHAPE.
    """
    if inputs and model is None:
        raise Error(f"{inputs[0]}: an input of no model: name an ONNX file")
    path = GRIDS / f"{name}.toml" if "/" not in str(name) and not str(name).endswith(".toml") else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in GRIDS.glob("*.toml")))
        raise Error(f"no grid {name!r}: choose {known}, or give a .toml file")
    try:
        text = path.read_bytes()
        said = tomllib.loads(text.decode())
        if unknown := said.keys() - {"about", "seed", "timeout_seconds", "parity_limit", "parity_size", "trials"}:
            raise ValueError(f"unknown {min(unknown)!r}")
        trials = [one for block in said["trials"] for one in _expand(block, weights, model, inputs)]
        seed, timeout = int(said["seed"]), float(said.get("timeout_seconds", TIMEOUT_SECONDS))
        limit = float(said.get("parity_limit", PARITY_LIMIT))
        named = said.get("parity_size", "{}x{}".format(*PARITY_SIZE))
        sizes = tuple(images.parse_size(str(one)) for one in (named if isinstance(named, list) else [named]))
        if not sizes or not limit > 0:
            raise ValueError("it names no parity_size, or no parity_limit above 0")
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError, ValueError) as error:
        missing = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise Error(f"{path} is not a grid: {missing}; compare it with {GRIDS / 'quick.toml'}") from error
    twice = {one.name for one in trials if sum(other.name == one.name for other in trials) > 1}
    if twice:
        name = min(twice)
        if len(files := {one.model or one.weights for one in trials if one.name == name}) > 1:
            raise Error(f"{path} has two files of one name, {' and '.join(sorted(files))}: rename one")
        raise Error(f"{path} asks twice for {name}: give each trial once")
    if not trials:
        raise Error(f"{path}: no variant in it takes {model}: give a grid that has one, such as onnx")
    for named in {one.weights for one in trials} - {None}:
        prepared.find(named)
    for one in trials:
        check(one)
    for one in {(one.model, one.inputs, one.height, one.width): one for one in trials}.values():
        feed(one)
    sha256 = hashlib.sha256(text + " ".join(inputs).encode()).hexdigest()  # another grid with other inputs
    return Grid(path.stem, interleaved(trials, seed), seed, timeout, sha256, limit, sizes)


def interleaved(trials, seed):
    """Trials in the order of a study: a drift of the machine does not fall on one variant."""
    order = random.Random(seed)
    return sorted(trials, key=lambda one: (one.repeat, one.timeline, order.random()))


def _expand(block, weights, model, given) -> Iterable[Trial]:
    if not isinstance(block, dict):
        raise ValueError("its trials are not tables, each under [[trials]]")
    block = dict(block)
    names, sizes, threads = block.pop("variants"), block.pop("sizes"), block.pop("threads")
    repeats, runs = block.pop("repeats"), block.pop("runs", STEADY_RUNS)
    timeline, inputs = block.pop("timeline", False), block.pop("inputs", [])
    if model is not None and not block.keys() & {"weights", "models"}:
        inputs = inputs or [*given]
        names, block["models"] = [name for name in names if catalogue.find(name).takes_models], [model]
    named, models = block.pop("weights", [weights]), block.pop("models", [])
    if block:
        raise ValueError(f"unknown {min(block)!r}")
    lists = {
        "variants": names,
        "sizes": sizes,
        "threads": threads,
        "weights": named,
        "models": models,
        "inputs": inputs,
    }
    for key, value in lists.items():
        if not isinstance(value, list):
            raise ValueError(f"{key} = {value!r} is not a list")
    for key, numbers, least in (("threads", threads, 1), ("repeats", [repeats], 1), ("runs", [runs], 0)):
        for number in numbers:
            if type(number) is not int or number < least:
                raise ValueError(f"{number!r} in {key} is not a whole number from {least}")
    for count in threads:
        machine.threads(count)
    loaded = [(None, file, tuple(inputs)) for file in models] or [(file, None, tuple(inputs)) for file in named]
    for name, size, count, repeat, what in product(names, sizes, threads, range(repeats), loaded):
        catalogue.find(name)
        yield Trial(name, *images.parse_size(str(size)), count, repeat, runs, *what, timeline)
