"""The same grid on every machine of a cluster: a study a machine, one trial at a time each.

What a study asks of its place is asked on a worker of that machine, in the environment that the machine has without
dask: for what it starts, dask sets allocator thresholds and numbers of threads that a trial is not to have.
"""

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
from distributed import get_worker

from udnet import Error
from udnet.cluster import workers
from udnet.trials import study
from udnet.trials.grid import Grid
from udnet.trials.trial import Trial

ATTEMPTS = 3  # workers of a machine that may be killed over one trial
ASK_SECONDS = 2


def run(client, grid, out, weights=None, model=None, progress=True, inputs=()):
    """Run what is missing of a grid into `out`/HOST for every machine of a cluster; by host, its `Study` or `Error`.

    `grid`, `weights`, `model`, `inputs`: as `study.run` takes them.
    """
    hosts = sorted({one.host for one in workers.about(client).values()})
    with ThreadPoolExecutor(len(hosts)) as pool:
        todo = {host: pool.submit(_study, client, host, grid, out, weights, model, progress, inputs) for host in hosts}
        try:
            return {host: one.result() for host, one in todo.items()}
        except BaseException:
            client.close()  # the other threads would go on
            raise


def _study(client, host, grid, out, weights, model, progress, inputs):
    try:
        return study.run(grid, Path(out) / host, weights, progress, model, There(client, host), inputs)
    except Error as error:
        return error


class There(study.Here):
    """A machine of a cluster, as the place of a study."""

    def __init__(self, client, host):
        self.client, self.host, self.lacks = client, host, {}

    def describe(self, grid, weights):
        """As `study.Here` has it."""
        return self._ask("describe", grid, weights)

    def missing(self, variant):
        """As `study.Here` has it."""
        if variant not in self.lacks:
            self.lacks[variant] = self._ask("missing", variant)
        return self.lacks[variant]

    def run(self, one, timeout):
        """As `study.Here` has it."""
        return self._ask("run", one, timeout)

    def difference(self, one, reference):
        """As `study.Here` has it."""
        return self._ask("difference", one, reference)

    def _ask(self, method, *asked):
        names = set().union(*map(_files, asked))
        given = {name: (Path(name).name, Path(name).read_bytes()) for name in names}
        for _ in range(ATTEMPTS):
            address, environment = self._find()
            future = self.client.submit(_answer, environment, given, method, *asked, workers=[address], pure=False)
            while future.status == "pending" and address in workers.addresses(self.client):
                workers.wait([future], ASK_SECONDS)
            if future.status in ("finished", "error"):
                return future.result()
            if future.status != "pending":
                raise Error(workers.GONE)
            future.cancel()
        raise Error(f"{ATTEMPTS} workers of {self.host} were killed, one after another: see what ends them there")

    def _find(self):
        """The address of a worker of this machine, and the environment that a process has there without dask."""
        until = time.monotonic() + workers.WAIT_SECONDS
        while time.monotonic() < until:
            for address, one in workers.about(self.client).items():
                if one.host == self.host:
                    with suppress(Exception):  # it was killed just now
                        return address, self._environment(address) if one.nanny else None
            time.sleep(ASK_SECONDS)
        raise Error(f"no worker of {self.host} is left: start one")

    def _environment(self, address):
        return self.client.run(_first_environment, workers=[address], nanny=True)[address]


def _files(asked):
    """The names of files of weights and of models in what is asked."""
    if isinstance(asked, Grid):
        return set().union(*map(_files, asked.trials))
    names = (asked.weights, asked.model) if isinstance(asked, Trial) else [asked]
    return {name for name in names if isinstance(name, str) and Path(name).is_file()}


def _moved(asked, places):
    """The same with the files where they lie on this machine."""
    if isinstance(asked, Grid):
        return replace(asked, trials=[_moved(one, places) for one in asked.trials])
    if isinstance(asked, Trial):
        weights, model = (places.get(name, name) for name in (asked.weights, asked.model))
        return replace(asked, weights=weights, model=model)
    return places.get(asked, asked) if isinstance(asked, str) else asked


# --- on a worker, and on what watches over it ---


_HERE = study.Here()


def _first_environment():
    """That with which this process was started: dask changes it afterwards, for what it starts."""
    return psutil.Process().environ()


def _answer(environment, given, method, *arguments):
    if environment is not None:
        os.environ.clear()
        os.environ.update(environment)
    places = {}
    for name, (short, data) in given.items():
        place = Path(get_worker().local_directory, hashlib.sha256(data).hexdigest(), short)
        place.parent.mkdir(exist_ok=True)
        if not place.exists():
            place.write_bytes(data)
        places[name] = os.fspath(place)
    return getattr(_HERE, method)(*(_moved(one, places) for one in arguments))
