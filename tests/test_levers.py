"""The levers: forms that compute the same, variants that load, peaks that fall by the maps that are not made."""

import subprocess
import sys

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from conftest import REPO
from test_publish import fabricate

from udnet import Error, NotMeasured
from udnet.analysis import scaling
from udnet.experiments import levers as measured
from udnet.network import checkpoint, export, forms, model, prepared
from udnet.pictures import images, reference
from udnet.system import memory
from udnet.system.memory import MIB
from udnet.trials import trial
from udnet.variants import catalogue, levers

slow = pytest.mark.slow


# Forms


@pytest.fixture(scope="module")
def state():
    return prepared.seeded()


@pytest.fixture(scope="module")
def network(state):
    return export.load(model.InferenceUDnet(), state, "seeded")


EVERY = {
    "as published": forms.Form,
    **forms.FORMS,
    "together": forms.compose(*forms.FORMS),
    **{f"onnx-{name}": forms.exported(name) for name in forms.EXPORTED},
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("size", [(1, 136, 104), (2, 24, 40)])
def test_a_form_computes_the_same_of_a_nearly_uniform_picture(name, size, state, network):
    form = export.load(EVERY[name](), state, "seeded")
    assert form.state_dict().keys() == network.state_dict().keys()
    x = torch.from_numpy(export._picture(*size))
    with torch.inference_mode():
        expected, enhanced = network(x), form(x.clone())
    assert (enhanced - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["together", "unpadded"])
def test_a_form_takes_the_smallest_picture(name, state, network):
    form = export.load(EVERY[name](), state, "seeded")
    x = torch.from_numpy(export._picture(1, 16, 16))
    with torch.inference_mode():
        assert (form(x.clone()) - network(x)).abs().max() <= 1e-5


def test_a_form_leaves_its_input_alone(state):
    form, x = export.load(EVERY["together"](), state, "seeded"), torch.from_numpy(export._picture(1, 16, 24))
    before = x.clone()
    with torch.inference_mode():
        form(x)
    assert torch.equal(x, before)


# Graphs: each takes an export of its own


@slow
def test_a_graph_by_name_is_in_the_cache_and_is_cleaned_away():
    path = prepared.prepared(prepared.find("seeded"), "onnx-split")
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("ReduceL2") == 2, "one for each half"
    assert not onnx.load(path).graph.value_info, "with it ONNX Runtime would hold buffers for later"
    assert prepared._OURS.fullmatch(path.relative_to(prepared.cache_folder()).as_posix())
    assert checkpoint.read(path).keys() == checkpoint.read(prepared.find("seeded").path).keys()


# Variants


def test_every_lever_differs_from_a_variant_that_is_there():
    assert len({(one.variant, one.against) for one in levers.LEVERS}) == len(levers.LEVERS)
    for one in levers.LEVERS:
        assert one.place in ("alone", "last", "together")
        assert {catalogue.find(name).name for name in (one.variant, one.against)} == {one.variant, one.against}
        assert catalogue.find(one.variant).runtime == catalogue.find(one.against).runtime
    named = {name for one in levers.LEVERS for name in (one.variant, one.against)}
    assert set(levers.VARIANTS) <= named
    with pytest.raises(Error, match=r"no variant 'lever\.onnx-togeter': did you mean lever\.onnx-together, "):
        catalogue.find("lever.onnx-togeter")


def test_finding_a_lever_imports_no_runtime_and_no_table():
    code = "from udnet.variants.catalogue import find; find('lever.onnx-together')\nimport sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, check=True, text=True).stdout
    assert not {"torch", "onnxruntime", "onnx", "pandas"} & set(found.split())


@pytest.fixture(scope="module")
def x():
    return images.to_batch(reference.picture(32, 48))


@pytest.fixture(scope="module")
def expected(x, network):
    with torch.inference_mode():
        return network(torch.from_numpy(x)).numpy()


def output(name, x, monkeypatch):
    """A lever's output, computed by this process, whose memory it leaves alone."""
    monkeypatch.setattr(memory, "return_freed_memory", lambda: None)
    variant, weights = catalogue.find(name), prepared.find("seeded")
    return variant.load(1, *(prepared.prepared(weights, form) for form in variant.forms))(x)


EXACT = [name for name in levers.VARIANTS if not any(word in name for word in levers.INEXACT)]
ALONE = "lever.onnx-first-chunk"  # a process has one arena, and here that is of another kind


def own_graph(name):
    return catalogue.find(name).forms[0].startswith("onnx-")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=slow) if own_graph(name) else name for name in EXACT if name != ALONE]
)
def test_a_lever_computes_the_same(name, x, expected, monkeypatch):
    assert np.abs(output(name, x, monkeypatch) - expected).max() <= 1e-5


@pytest.mark.parametrize(
    ("name", "limit"),
    [("pytorch-together-bfloat16", 0.05), ("onnx-float16", 0.01), pytest.param("onnx-int8", 0.3, marks=slow)],
)
def test_an_inexact_lever_is_near(name, limit, x, expected, monkeypatch):
    assert 1e-5 < np.abs(output(f"lever.{name}", x, monkeypatch) - expected).max() <= limit


@pytest.mark.parametrize(
    "name", [ALONE, "lever.onnx-bare", *(pytest.param(f"lever.{one}-together", marks=slow) for one in levers.TOGETHER)]
)
def test_a_lever_computes_the_same_in_a_process_of_its_own(name, expected):
    """With what a process alone can have: its arena, its environment, memory that goes back."""
    result = trial.run(trial.Trial(name, 32, 48, 1, runs=0, weights="seeded"), keep_output=True)
    assert result.error == ""
    assert np.abs(result.outputs[0] - expected).max() <= 1e-5


# Peaks

SIDE = 256
MAP = 64 * SIDE**2 * 4  # one activation of 64 channels at full size
PEAKS = 6  # the least of them counts: those of one setting lie up to a sixth of a map apart, by the allocator's chance


@pytest.fixture(scope="module")
def peak():
    known = {}

    def of(name):
        if name not in known:
            results = [trial.run(trial.Trial(name, SIDE, SIDE, 2, runs=1, weights="seeded")) for _ in range(PEAKS)]
            assert {result.error for result in results} == {""}
            known[name] = min(max(row["peak_bytes"] for row in result.rows) for result in results)
        return known[name]

    return of


@pytest.mark.parametrize(
    ("lever", "without", "maps"),
    [
        ("pytorch-together", "pytorch-all-but-early", 3),  # the first skip connection, and the 128 channels
        pytest.param("pytorch-together", "pytorch-all-but-split", 1, marks=slow),  # two halves, not the whole and two
        # a blocked copy, of which some is there otherwise
        pytest.param("pytorch-together", "pytorch-all-but-channels-last", 0.9, marks=slow),
        pytest.param("onnx-together", "onnx-bare", 3, marks=slow),  # differences and squares of 128 channels
        pytest.param("onnx-together", "onnx-bare-shared", 1, marks=slow),
        pytest.param("onnx-bare-shared", "onnx-bare", 2, marks=slow),
        pytest.param("onnx-together", "onnx-all-but-no-arena", 3, marks=slow),  # what the arena has freed and keeps
    ],
)
def test_a_peak_is_lower_by_the_maps_that_are_not_made(lever, without, maps, peak):
    saved = (peak(f"lever.{without}") - peak(f"lever.{lever}")) / MAP
    assert saved >= 0.9 * maps, "a tenth is the allocator's"


# Measuring and reading


def test_levers_are_measured_and_read(tmp_path, monkeypatch):
    only = ("lever.onnx-float16", "lever.onnx-hugepages")
    monkeypatch.setattr(measured, "LEVERS", tuple(one for one in levers.LEVERS if one.variant in only))
    monkeypatch.setattr(measured, "TILED", ("onnx-tiled",))
    with pytest.raises(NotMeasured, match="the levers were not measured"):
        measured.read(tmp_path)
    found = measured.measure(tmp_path, {(16, 24): 1}, "seeded", progress=False)
    exact = dict.fromkeys(["onnx", "lever.onnx-hugepages", "onnx-tiled"], True)
    assert found.costs.set_index("variant").exact.to_dict() == exact | {"lever.onnx-float16": False}
    psnr = found.saved.set_index("variant").psnr
    assert 20 < psnr["lever.onnx-float16"] < 80 and np.isnan(psnr["lever.onnx-hugepages"])
    monkeypatch.setattr(trial, "run", None)
    assert measured.measure(tmp_path, {(16, 24): 1}, "seeded", progress=False).costs.equals(found.costs), "kept"


@pytest.fixture
def made_up(tmp_path):
    """A study with levers whose every number is known: MiB loaded, fixed, bytes a pixel, microseconds a pixel."""
    costs = {
        "pytorch": (10, 200, 2048, 20),
        "lever.pytorch-early": (10, 200, 1536, 20),
        "lever.pytorch-all-but-early": (10, 200, 1536, 10),
        "lever.pytorch-together": (10, 200, 1024, 10),
        "onnx": (10, 50, 4096, 10),
        "lever.onnx-trimmed": (10, 50, 4096, 11),
        "lever.onnx-together": (10, 50, 1024, 15),
        "lever.onnx-shared": (10, 50, 3072, 10),
        "lever.onnx-split": (10, 50, 2048, 10),
        "onnx-tiled": (10, 50, 256, 40),
        "lever.onnx-float16": (10, 50, 512, 5),
    }
    done = fabricate(tmp_path / "study")
    fabricate(done.folder / "levers", costs, sides=(256, 512))
    path = done.folder / "levers" / "trials.csv"
    trials = pd.read_csv(path)
    trials["runtime"] = [catalogue.find(name).runtime for name in trials.variant]
    trials.loc[trials.phase == "import", "peak_bytes"] = 1
    trials.to_csv(path, index=False)
    parity = pd.DataFrame({"variant": list(costs), "largest_difference": [1e-7] * 10 + [1e-3]})
    parity.assign(weights="", height=264, width=136, error="").to_csv(
        done.folder / "levers" / "parity.csv", index=False
    )
    psnr = pd.DataFrame([("lever.onnx-float16", "default", 256, 256, 61.5)], columns=measured.PSNR)
    psnr.to_csv(done.folder / "levers" / "psnr.csv", index=False)
    return done


def test_what_a_lever_saves_is_a_difference_of_medians(made_up):
    saved = measured.read(made_up.folder).saved.set_index(["variant", "against", "size"])
    early = saved.loc[("lever.pytorch-early", "pytorch", "512x512")]
    assert early.saved == scaling.Estimate(128 * MIB, 128 * MIB, 128 * MIB)  # 512 bytes less for each of 2^18 pixels
    assert early.times.best == 1 and early.place == "alone"
    last = saved.loc[("lever.pytorch-together", "lever.pytorch-all-but-early", "256x256")]
    assert last.saved.best == 32 * MIB and last.place == "last"
