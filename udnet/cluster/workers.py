"""The workers of a cluster of dask.distributed: those at an address, or some that are started on this machine."""

import logging
import os
import socket
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec

from udnet import Error, __version__
from udnet.system import guard, machine, memory
from udnet.system.memory import MIB

LOCAL = "local"  # in place of an address
GONE = "the scheduler is gone: start one, and workers where they ended with it"
CONNECT_SECONDS = 10
WAIT_SECONDS = 60  # for a worker, where there is none any more
QUIET = {
    "logging": {"distributed": "critical"},  # in the workers that are started
    "distributed.client.heartbeat": "1s",
    "distributed.admin.large-graph-warning-threshold": "1GB",  # a picture goes with its task
}
ENGINE = 128 * MIB  # of this process, with the scheduler and what watches over the workers (measured: 111)
WORKER = 320 * MIB  # of a worker: 117 before its first picture (measured), and room for one of 2160x3840


@dataclass(frozen=True)
class About:
    """A worker, as it describes itself."""

    version: str
    host: str
    nanny: bool  # whether a process of dask's watches over it, and starts it again

    @classmethod
    def of(cls, dask_worker):
        """Asked on the worker."""
        return cls(__version__, socket.gethostname(), bool(dask_worker.nanny))


@contextmanager
def connected(address, threads=None, memory_limit=None):
    """A `distributed.Client` for the cluster at an address, or for workers that are started here: `local`.

    `threads` and `memory_limit` (bytes): of all local workers together (None: all cores, half of what is free). `Error`
    where there is no scheduler at that address, no worker, or one without this very version of udnet.
    """
    if not find_spec("distributed"):
        raise Error("no dask.distributed here: make extras, or pip install -c requirements.lock -e '.[cluster]'")
    import dask
    from distributed import Client

    for name in logging.root.manager.loggerDict:
        if name.startswith("distributed"):  # what matters is said by whoever waits for the workers
            logging.getLogger(name).setLevel(logging.CRITICAL)
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(QUIET))
        if address == LOCAL:
            address = stack.enter_context(_started(threads, memory_limit))
        try:
            _reach(address)
            client = stack.enter_context(Client(address, timeout=CONNECT_SECONDS))
            client.wait_for_workers(1, CONNECT_SECONDS)
        except TimeoutError as error:
            raise Error(f"the cluster at {address} has no worker: start one there: dask worker {address}") from error
        except (OSError, ValueError) as error:
            start = "start one: dask scheduler, and workers: dask worker ADDRESS"
            raise Error(f"no scheduler answers at {address}: {start}") from error
        about(client)
        yield client


def _reach(address):
    """`ValueError` or `OSError` where nothing answers there: a client that fails to connect leaves its loop behind."""
    from distributed.comm import get_address_host_port

    socket.create_connection(get_address_host_port(address), CONNECT_SECONDS).close()


def about(client):
    """`About` every worker, by its address; `Error` where one has not this very version of udnet, or all is gone."""
    try:
        found = client.run(About.of, on_error="return")
    except Exception as error:  # of the many that a lost connection raises
        raise Error(GONE) from error
    for address, one in found.items():
        if isinstance(one, (ImportError, AttributeError)) or getattr(one, "version", __version__) != __version__:
            has = f"udnet {one.version}" if isinstance(one, About) else f"another udnet, or none ({one})"
            raise Error(f"the worker at {address} has {has}: install udnet {__version__} there, as here")
    return {address: one for address, one in found.items() if isinstance(one, About)}


def addresses(client):
    """Those of all workers; `Error` where the scheduler is gone."""
    try:
        return set(client.nthreads())
    except Exception as error:  # of the many that a lost connection raises
        raise Error(GONE) from error


def wait(futures, seconds):
    """Until one of them has come to an end, of whatever kind, or so long."""
    from distributed import wait

    with suppress(TimeoutError, CancelledError):
        wait(futures, seconds, "FIRST_COMPLETED")


@contextmanager
def _started(threads, limit):
    from distributed import LocalCluster

    count, each = shares(machine.threads(threads), limit or guard.free() // 2)
    about = {"memory_limit": None, "dashboard_address": None, "silence_logs": logging.CRITICAL}  # a plan keeps to it
    before = dict(os.environ)
    try:
        with LocalCluster(n_workers=count, threads_per_worker=each, processes=True, **about) as cluster:
            yield cluster.scheduler_address
    finally:
        os.environ.clear()  # it sets variables for its workers in this process, and leaves them
        os.environ.update(before)


def shares(threads, limit):
    """How many workers carry so many threads and bytes, and the threads of each: as many as the memory has room for."""
    carried = (limit - ENGINE) // WORKER
    if carried < 1:
        raise Error(f"{memory.mib(limit)} carry no worker: give {memory.mib(ENGINE + WORKER)} or more")
    count = min(threads, int(carried))
    return count, threads // count


def share(limit, count):
    """The memory limit of each of so many local workers, of a limit in all."""
    return (limit - ENGINE) // count
