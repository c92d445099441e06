"""Allocators, the ladder of loading and the report's protocol: small, and run for real."""

import numpy as np
import pytest

from udnet import PARITY_LIMIT, Error
from udnet.analysis import arithmetic
from udnet.experiments import protocol
from udnet.trials import study, trial
from udnet.trials.grid import Grid
from udnet.variants import allocators, compared, enhancer, ladder
from udnet.variants.catalogue import find


def test_an_allocator_is_another_environment_of_the_same_variant(tmp_path, monkeypatch):
    (tmp_path / "x86").mkdir()
    library = tmp_path / "x86" / "libjemalloc.so.2"
    library.touch()
    monkeypatch.setattr(allocators, "FOLDERS", (str(tmp_path),))
    under = find("pytorch+jemalloc")
    assert (under.name, under.load, under.environment) == (
        "pytorch+jemalloc",
        compared.VARIANTS["pytorch"].load,
        {"LD_PRELOAD": str(library)},
    )
    assert find("onnx+hugepages").environment == {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
    assert find("load.meta+jemalloc").environment == under.environment


def test_an_absent_allocator_is_a_row_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(allocators, "FOLDERS", (str(tmp_path),))
    monkeypatch.setattr(study, "_file_sizes", lambda *_: {})  # or it would export the network
    one = trial.Trial("onnx+tcmalloc", 16, 16, 1)
    with pytest.raises(Error, match=r"onnx\+tcmalloc cannot run here: no libtcmalloc.*install Debian's libtcmalloc"):
        trial.run(one)
    done = study.run(Grid("absent", [one], seed=0), tmp_path / "study", progress=False)
    assert done.trials[["status", "error"]].to_numpy().tolist() == [
        ["skipped", "no libtcmalloc_minimal.so.4: install Debian's libtcmalloc-minimal4"]
    ]


def test_an_unknown_allocator_or_rung():
    with pytest.raises(Error, match="no allocator 'malloc': choose from jemalloc, "):
        find("onnx+malloc")
    with pytest.raises(Error, match=r"no variant 'load\.nothing': did you mean load\."):
        find("load.nothing")


def test_every_rung_differs_from_one_before_it():
    seen = set()
    for rung in ladder.RUNGS:
        assert find(rung.variant).name == rung.variant
        assert rung.before in seen or not rung.before
        seen.add(rung.variant)
    assert set(ladder.VARIANTS) <= seen


@pytest.mark.parametrize("name", [pytest.param("load.no-vgg", marks=pytest.mark.slow), "load.meta", "load.onnx-ort"])
def test_a_rung_computes_the_same(name, any_weights):
    x = np.random.default_rng(0).random((1, 3, 32, 48), np.float32)
    one, other = (enhancer.load(which, any_weights, threads=2).network(x) for which in ("pytorch", name))
    assert np.abs(one - other).max() <= PARITY_LIMIT


def test_the_protocol_reads_between_the_steps(tmp_path, monkeypatch, any_weights):
    monkeypatch.setattr(protocol, "SCRIPTS", {"onnx": protocol.SCRIPTS["onnx"]})
    once = {"repeats": 1, "weights": any_weights, "progress": False}
    table = protocol.run(tmp_path, **once)
    assert list(table.step) == ["start", "load", "inference", "inference"]
    assert table.rss_bytes.is_monotonic_increasing
    steps = table[table.step != "start"]
    assert (steps.peak_bytes >= steps.rss_bytes - 2**20).all(), "a peak is no less than the reading after it"
    assert (steps.network_seconds.dropna() <= steps.seconds[steps.network_seconds.notna()]).all()
    assert protocol.run(tmp_path, **once).equals(table), "kept, not run again"


def test_multiply_adds_are_those_of_the_specification():
    assert arithmetic.multiply_adds() == pytest.approx(356_000, rel=0.005)
