"""Pictures on the workers of a cluster: each has the network, and enhances one picture at a time.

A picture's file goes to a worker with its task, and what comes back is written here: the machines need no folder in
common, a task whose worker is killed has all that another worker needs, and one process alone writes into OUT.
"""

import shutil
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from distributed import KilledWorker, WorkerPlugin, get_worker

from udnet import Error
from udnet.cluster import workers
from udnet.network import prepared
from udnet.pictures import folders, photographs
from udnet.pictures.images import PictureError
from udnet.system import files, memory
from udnet.tiled.schedule import OverLimit
from udnet.variants import enhancer

AHEAD = 2  # pictures that a worker has: the one that it enhances, and the next
ASK_SECONDS = 1  # how often the cluster is asked how it is
TAKEN = "the workers enhance for another run meanwhile: wait for that one"
NEXT = 16 * memory.MIB  # of a worker's limit, for the file of the next picture and what dask does meanwhile


class NoRoom(NamedTuple):
    """What comes back in place of a picture that is too large for the memory limit of a worker."""

    worker: str  # its address
    said: str


class Enhancing(WorkerPlugin):
    """What each worker has while a folder is enhanced, also one that comes later, or that was started again.

    `variant`, `weights`, `scratch`: as `enhancer.load` takes them; `memory_limit`: bytes for each worker, for a tiled
    variant (None: what dask gives it before it is paused; where that is nothing, half of what is free).
    """

    name = "udnet-enhancing"

    def __init__(self, variant=None, weights=None, memory_limit=None, scratch=None):
        self.id, self.memory_limit, self.scratch = uuid.uuid4().hex, memory_limit, scratch
        self.variant, self.weights = enhancer.choose(variant), prepared.find(weights)
        paths = [prepared.prepared(self.weights, form) for form in self.variant.forms]
        self.files = [(path.name, path.read_bytes()) for path in paths]
        self.asked, self.tiled = variant, self.variant.schedule == "tiled"
        self.client = None  # of the run, by dask's id

    def __getstate__(self):
        return vars(self) | {"variant": None}  # a variant holds functions that pickle cannot send

    def setup(self, worker):
        """Load the network, with as many threads as the worker has."""
        memory.keep_freed_memory()  # dask has it handed back: each picture would ask for its pages again
        self.turn = threading.Lock()
        self.folder = Path(worker.local_directory, self.id)
        self.folder.mkdir()
        for name, data in self.files:
            (self.folder / name).write_bytes(data)
        limit, manager = self.memory_limit, worker.memory_manager
        if limit is None and self.tiled and manager.memory_limit:
            limit = int(manager.memory_limit * (manager.memory_pause_fraction or 1))
        about = enhancer.choose(self.asked, limit, self.scratch)
        paths = [self.folder / name for name, _ in self.files]
        self.enhancer = enhancer.Enhancer(about, about.load(worker.state.nthreads, *paths), self.weights)

    def teardown(self, worker):
        """Let go of the network."""
        self.enhancer = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def enhance(self, name, data, suffix):
        """The bytes of a picture's file, enhanced, in the format of a suffix; and how many notes it had no room for.

        A picture that is too large for this worker's limit is `NoRoom`.
        """
        with self.turn, files.temporary_folder() as folder:
            enhance = self.enhancer  # another run may take its place meanwhile
            if enhance is None:
                raise Error(TAKEN)
            source, out = folder / Path(name).name, folder / f"enhanced{suffix}"
            source.write_bytes(data)
            held = enhance.held + NEXT

            def begin(_, header):
                if self.tiled:
                    enhance.network.plan_for(replace(header, beside=header.beside + held))

            try:
                left_out = folders.enhance_file(lambda picture: enhance(picture, held), source, out, begin)
            except Error as error:
                said = str(error).replace(str(source), name).replace(str(out), name)
                if isinstance(error.__cause__, OverLimit):
                    return NoRoom(get_worker().address, said)
                raise PictureError(said) from None
            return out.read_bytes(), left_out


def _enhance(id, *about):
    """On a worker: by its `Enhancing`, if that is still the one that was meant."""
    plugin = get_worker().plugins.get(Enhancing.name)
    if plugin is None or plugin.id != id:
        raise Error(TAKEN)
    return plugin.enhance(*about)


def on(client, enhancing):
    """For `folders.enhance_path`: what enhances photographs on the workers of a cluster."""

    def each(pairs):
        pairs, sent, alone = iter(pairs), {}, None
        refused = {}  # the workers that had no room for a picture
        _begin(client, enhancing)
        try:
            while True:
                count = len(workers.addresses(client))
                for pair in islice(pairs, max(0, AHEAD * count - len(sent))):
                    try:
                        sent[_send(client, enhancing.id, pair)] = pair
                    except Error as error:
                        yield pair, error
                if not sent and count:
                    return
                alone = None if count else alone or time.monotonic()
                if alone and time.monotonic() - alone > workers.WAIT_SECONDS:
                    raise Error("no worker is left: start some")
                for future in _ended(sent):
                    pair = sent.pop(future)
                    outcome = _outcome(future, pair)
                    if isinstance(outcome, NoRoom):
                        refused.setdefault(pair, set()).add(outcome.worker)
                        if others := workers.addresses(client) - refused[pair]:
                            sent[_send(client, enhancing.id, pair, others)] = pair
                            continue
                        outcome = PictureError(outcome.said)
                    yield pair, outcome
        finally:
            if client.status == "running":
                _end(client, enhancing, sent)

    return each


def _begin(client, enhancing):
    """Load the network on every worker; `Error` where they enhance for another run that is still there."""
    enhancing.client = client.id
    if _is_taken(client):
        raise Error(TAKEN)
    try:
        client.register_plugin(enhancing)
    except Exception as error:  # whatever a runtime raises there
        _end(client, enhancing)
        if isinstance(error, Error):
            raise
        raise Error(f"a worker cannot load {enhancing.asked}: {photographs.line(error)}") from error


def _end(client, enhancing, sent=()):
    with suppress(Exception):  # all is gone; or another run took its place at the same moment, and ended
        client.cancel(list(sent))
        client.unregister_worker_plugin(enhancing.name)


def _is_taken(client):
    """Whether a worker enhances for a client that is still connected."""
    try:
        others = {*client.run(_whose, on_error="ignore").values()} - {None}
        return bool(others & client.run_on_scheduler(_clients))
    except Exception as error:  # of the many that a lost connection raises
        raise Error(workers.GONE) from error


def _whose(dask_worker):
    """The client for which a worker enhances, by dask's id; None where it does not."""
    plugin = dask_worker.plugins.get(Enhancing.name)
    return plugin and plugin.client


def _clients(dask_scheduler):
    """Those that are connected."""
    return {*dask_scheduler.clients}


def _send(client, id, pair, among=None):
    """Send a picture to a worker, of some if they are there."""
    photographs.header(pair.source, pair.target)  # refused here, before it goes anywhere
    try:
        data = pair.source.read_bytes()
    except OSError as error:
        raise PictureError(f"{pair.source}: cannot be opened ({error.strerror}): check its permissions") from error
    about = {"pure": False, "workers": among and sorted(among), "allow_other_workers": bool(among)}
    return client.submit(_enhance, id, str(pair.source), data, pair.target.suffix, **about)


def _ended(sent):
    """Those that have come to an end, of whatever kind; after a while, if there is none."""
    if not sent:
        time.sleep(ASK_SECONDS)
    workers.wait(list(sent), ASK_SECONDS)
    return [future for future in sent if future.status != "pending"]


def _outcome(future, pair):
    """How many notes were left out of a picture that is now written, the `Error` of its failure, or `NoRoom`."""
    if future.status not in ("finished", "error"):
        raise Error(workers.GONE)
    try:
        made = future.result()
        if isinstance(made, NoRoom):
            return made
        data, left_out = made
        pair.target.parent.mkdir(parents=True, exist_ok=True)
        with files.replacing(pair.target, note=pair.note) as part:
            part.write_bytes(data)
    except KilledWorker:
        return PictureError(f"{pair.source}: cannot be enhanced: every worker that began it was killed")
    except Error as error:
        return error
    except Exception as error:
        return PictureError(f"{pair.source}: cannot be enhanced: {photographs.line(error)}")
    return left_out
