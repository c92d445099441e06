"""What every test may use."""

import hashlib
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from udnet.network import prepared

REPO = Path(__file__).resolve().parent.parent
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

os.environ["OMP_NUM_THREADS"] = "1"  # each core has a worker; trials are told a number of their own

always = {"deadline": None, "suppress_health_check": list(HealthCheck)}
settings.register_profile("same", **always, derandomize=True, max_examples=300)
settings.register_profile("roam", **always, max_examples=5000)
settings.load_profile("same")


def pytest_configure(config):
    """A cache folder of this run's own, which xdist's workers share: what is made from weights is made once."""
    if not hasattr(config, "workerinput"):
        os.environ["UDNET_CACHE"] = tempfile.mkdtemp(prefix="udnet-cache-")


def pytest_unconfigure(config):
    """Remove it: at most 0.7 GB."""
    if not hasattr(config, "workerinput"):
        shutil.rmtree(os.environ["UDNET_CACHE"])


@pytest.fixture(scope="session", autouse=True)
def made_once():
    """A worker that needs what another is making waits for it."""
    if sys.platform == "win32":
        return
    import fcntl

    make, locks = prepared._made, Path(os.environ["UDNET_CACHE"]) / "locks"
    locks.mkdir(exist_ok=True)

    def wait(name, *rest, **more):
        out = os.fspath(prepared.cache_folder() / name)
        with (locks / hashlib.sha256(out.encode()).hexdigest()).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return make(name, *rest, **more)

    prepared._made = wait


@pytest.fixture(scope="session")
def shared():
    """The folder of published weights and photographs beside the repository; tests skip without it."""
    folder = REPO.parent / "shared"
    if not (folder / "models" / "UDnet_dynamic.onnx").exists():
        pytest.skip("no ../shared/models/UDnet_dynamic.onnx: the published weights are not on this machine")
    return folder


@pytest.fixture(scope="session")
def published(shared):
    """The published ONNX file."""
    return shared / "models" / "UDnet_dynamic.onnx"


@pytest.fixture(scope="session")
def any_weights():
    """The published ONNX file where it is on this machine, which saves an export, else the embedded default."""
    path = REPO.parent / "shared" / "models" / "UDnet_dynamic.onnx"
    return str(path) if path.exists() else None


@pytest.fixture(scope="session")
def exported():
    """An export of the seeded weights, for every test that needs one: it takes twenty seconds."""
    return prepared.prepared(prepared.find("seeded"), "onnx")


def soon(what, seconds=20):
    """Wait until something is so; whether it was within the time."""
    end = time.monotonic() + seconds
    while not what() and time.monotonic() < end:
        time.sleep(0.02)
    return bool(what())


def heed_signals():
    """As a child begins (`preexec_fn`): the background jobs of a shell ignore Ctrl-C, those of nohup SIGHUP."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=["--disable-gpu", "--disable-quic"])
        yield browser
        browser.close()
