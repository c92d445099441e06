"""The levers: forms that compute the same, variants that load, peaks that fall by the maps that are not made."""

import os
import subprocess
import sys

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from conftest import REPO
from test_publish import fabricate

from udnet import (
    Error,
    checkpoint,
    export,
    figures,
    findings_levers,
    forms,
    levers,
    model,
    scaling,
    study,
    trial,
    variants,
)
from udnet.memory import MIB
from udnet.trial import Trial

SLOW = pytest.mark.skipif("UDNET_TEST_ALL" not in os.environ, reason="exports or compiles: set UDNET_TEST_ALL=1")
QUICK = (  # every setting is in one of these, and one of the graphs
    *("pytorch-together", "pytorch-one-thread", "onnx-together", "onnx-shrinking", "onnx-as-requested"),
    *("onnx-parallel", "onnx-unoptimised", "onnx-one-thread"),
)


# Forms


@pytest.fixture(scope="module")
def state():
    return checkpoint.read(checkpoint.find("seeded").path)


def loaded(network, state):
    checkpoint.load_into(network, state, "seeded")
    return network.eval()


EVERY = {
    "as published": forms.Form,
    **forms.FORMS,
    "together": forms.compose(*forms.FORMS),
    **{f"onnx-{name}": forms.exported(name) for name in forms.EXPORTED},
}


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("size", [(1, 264, 136), (2, 24, 40)])
def test_a_form_computes_the_same_of_a_nearly_uniform_picture(name, size, state):
    network, form = loaded(model.InferenceUDnet(), state), loaded(EVERY[name](), state)
    assert form.state_dict().keys() == network.state_dict().keys()
    x = torch.from_numpy(export._picture(*size))
    with torch.inference_mode():
        expected, enhanced = network(x), form(x.clone())
    assert (enhanced - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["together", "unpadded"])
def test_a_form_takes_the_smallest_picture(name, state):
    network, form = loaded(model.InferenceUDnet(), state), loaded(EVERY[name](), state)
    x = torch.from_numpy(export._picture(1, 16, 16))
    with torch.inference_mode():
        assert (form(x.clone()) - network(x)).abs().max() <= 1e-5


def test_a_form_leaves_its_input_alone(state):
    form, x = loaded(EVERY["together"](), state), torch.from_numpy(export._picture(1, 16, 24))
    before = x.clone()
    with torch.inference_mode():
        form(x)
    assert torch.equal(x, before)


# Graphs


def test_a_graph_by_name_is_in_the_cache_and_is_cleaned_away():
    path = checkpoint.prepared(checkpoint.find("seeded"), "onnx-split")
    operators = [node.op_type for node in onnx.load(path).graph.node]
    assert operators.count("ReduceL2") == 2, "one for each half"
    assert not onnx.load(path).graph.value_info, "with it ONNX Runtime would hold buffers for later"
    assert checkpoint._OURS.fullmatch(path.relative_to(checkpoint.cache_folder()).as_posix())
    assert checkpoint.read(path).keys() == checkpoint.read(checkpoint.find("seeded").path).keys()


def test_a_graph_that_takes_no_smallest_picture_is_written():
    assert checkpoint.prepared(checkpoint.find("seeded"), "onnx-stitched").is_file()


def test_an_unknown_graph_is_one_line(tmp_path):
    with pytest.raises(export.ExportError, match=r"no graph 'none': choose from shared, split, "):
        export.export("seeded", tmp_path / "u.onnx", "none")


# Variants


def test_every_lever_differs_from_a_variant_that_is_there():
    assert len({(one.variant, one.against) for one in levers.LEVERS}) == len(levers.LEVERS)
    for one in levers.LEVERS:
        assert one.place in ("alone", "last", "together")
        assert {variants.find(name).name for name in (one.variant, one.against)} == {one.variant, one.against}
        assert variants.find(one.variant).runtime == variants.find(one.against).runtime
    named = {name for one in levers.LEVERS for name in (one.variant, one.against)}
    assert set(levers.VARIANTS) <= named
    with pytest.raises(Error, match=r"no variant 'lever\.onnx-togeter': did you mean lever\.onnx-together, "):
        variants.find("lever.onnx-togeter")


def test_finding_a_lever_imports_no_runtime_and_no_table():
    code = "from udnet.variants import find; find('lever.onnx-together')\nimport sys; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, check=True, text=True).stdout
    assert not {"torch", "onnxruntime", "onnx", "pandas"} & set(found.split())


def output(name):
    result = trial.run(Trial(name, 32, 48, 2, runs=0), keep_output=True)
    assert result.error == ""
    return result.output


@pytest.fixture(scope="module")
def expected():
    return output("pytorch")


EXACT = [name for name in levers.VARIANTS if not any(word in name for word in levers.INEXACT)]


@pytest.mark.parametrize(
    "name", [name if name.removeprefix("lever.") in QUICK else pytest.param(name, marks=SLOW) for name in EXACT]
)
def test_a_lever_computes_the_same(name, expected):
    assert np.abs(output(name) - expected).max() <= 1e-5


@pytest.mark.parametrize(
    ("name", "limit"),
    [("pytorch-together-bfloat16", 0.05), ("onnx-float16", 0.01), pytest.param("onnx-int8", 0.3, marks=SLOW)],
)
def test_an_inexact_lever_is_near(name, limit, expected):
    assert 1e-5 < np.abs(output(f"lever.{name}") - expected).max() <= limit


# Peaks

SIDE = 256
MAP = 64 * SIDE**2 * 4  # one activation of 64 channels at full size


@pytest.fixture(scope="module")
def peak():
    known = {}

    def measured(name):
        if name not in known:
            result = trial.run(Trial(name, SIDE, SIDE, 2, runs=1))
            assert result.error == ""
            known[name] = max(row["peak_bytes"] for row in result.rows)
        return known[name]

    return measured


@pytest.mark.parametrize(
    ("lever", "without", "maps"),
    [
        ("pytorch-together", "pytorch-all-but-early", 3),  # the first skip connection, and the 128 channels
        ("pytorch-together", "pytorch-all-but-split", 1),  # two halves and a convolution, not the whole and two
        ("pytorch-together", "pytorch-all-but-channels-last", 0.9),  # a blocked copy, of which some is there otherwise
        ("onnx-together", "onnx-bare", 3),  # differences and squares of 128 channels
        pytest.param("onnx-together", "onnx-bare-shared", 1, marks=SLOW),
        pytest.param("onnx-bare-shared", "onnx-bare", 2, marks=SLOW),
        ("onnx-together", "onnx-all-but-no-arena", 3),  # what the arena has freed and keeps
    ],
)
def test_a_peak_is_lower_by_the_maps_that_are_not_made(lever, without, maps, peak):
    saved = (peak(f"lever.{without}") - peak(f"lever.{lever}")) / MAP
    assert saved >= 0.9 * maps, "a tenth is the allocator's"


# Measuring and reading


def test_levers_are_measured_and_read(tmp_path, monkeypatch):
    only = tuple(one for one in levers.LEVERS if one.variant in ("lever.pytorch-bfloat16", "lever.pytorch-trimmed"))
    monkeypatch.setattr(levers, "LEVERS", only)
    assert levers.read(tmp_path) is None
    found = levers.measure(tmp_path, sizes={(16, 24): 1}, progress=False)
    exact = dict.fromkeys(["pytorch", "lever.pytorch-trimmed", *levers.TILED], True)
    assert found.costs.set_index("variant").exact.to_dict() == exact | {"lever.pytorch-bfloat16": False}
    psnr = found.saved.set_index("variant").psnr
    assert 20 < psnr["lever.pytorch-bfloat16"] < 80 and np.isnan(psnr["lever.pytorch-trimmed"])
    assert levers.measure(tmp_path, sizes={(16, 24): 1}, progress=False).costs.equals(found.costs), "kept"


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
    trials["runtime"] = [variants.find(name).runtime for name in trials.variant]
    trials.loc[trials.phase == "import", "peak_bytes"] = 1
    trials.to_csv(path, index=False)
    parity = pd.DataFrame({"variant": list(costs), "largest_difference": [1e-7] * 10 + [1e-3]})
    parity.assign(weights="", height=264, width=136, error="").to_csv(
        done.folder / "levers" / "parity.csv", index=False
    )
    psnr = pd.DataFrame([{"variant": "lever.onnx-float16", "height": 256, "width": 256, "psnr": 61.5}])
    psnr.to_csv(done.folder / "levers" / "psnr.csv", index=False)
    return done


def test_what_a_lever_saves_is_a_difference_of_medians(made_up):
    saved = levers.read(made_up.folder).saved.set_index(["variant", "against", "size"])
    early = saved.loc[("lever.pytorch-early", "pytorch", "512x512")]
    assert early.saved == scaling.Estimate(128 * MIB, 128 * MIB, 128 * MIB)  # 512 bytes less for each of 2^18 pixels
    assert early.times.best == 1 and early.place == "alone"
    last = saved.loc[("lever.pytorch-together", "lever.pytorch-all-but-early", "256x256")]
    assert last.saved.best == 32 * MIB and last.place == "last"


def test_the_table_of_levers(made_up):
    table = findings_levers.alone(made_up)
    large, small = ("512x512, 2 runs each", "256x256, 2 runs each")
    early = table.loc[("PyTorch", "pytorch-early", levers.CHANGES["early"])]
    assert early[large, "saved alone, MiB"] == early[large, "saved last, MiB"] == "128"
    trimmed = table.loc[("ONNX Runtime", "onnx-trimmed", levers.CHANGES["trimmed"])]
    assert trimmed[small, "time alone, times"] == "1.10" and trimmed[small, "saved last, MiB"] == ""
    split = table.loc[("ONNX Runtime", "onnx-split", levers.CHANGES["split"] + ", against onnx-shared")]
    assert split[large, "saved alone, MiB"] == "256"


def test_what_helps_together(made_up):
    said = findings_levers.together(made_up)
    # by hand: 200 + 512 and 200 + 256 MiB; 50 + 1024 and 50 + 256
    assert said.startswith(
        "**Levers.** At 512x512, 2 runs each: PyTorch's levers together need 456 MiB, 1.56 times less than the "
        "712 MiB of "
    )
    assert "take 0.50 times as long" in said
    assert "ONNX Runtime's levers together need 306 MiB, 3.51 times less than the 1,074 MiB" in said
    each = findings_levers.each(made_up)
    assert f"On top of the others *{levers.CHANGES['early']}* saves 128 MiB." in each
    # early saves 128 of 712 MiB; trimmed nothing, the graphs 256 of 1,074 and of 818: they are against one another
    assert "0 of 1 save less than 5% of what they are against, and 0 of these need" in each
    assert "1 of 3 save less than 5%" in each
    exact = findings_levers.less_exact(made_up)
    assert "the picture that is written, against float32's, at 256x256: " in exact
    assert "float16 on `onnx` saves 896 MiB and takes 0.50 times as long, at 61.5 dB" in exact


def test_the_figure_states_the_front(made_up):
    figure = figures.draw("levers", made_up)
    assert "1.6 times less in PyTorch and 3.5 times less in ONNX Runtime" in figure.get_suptitle()
    assert "0.5 and 1.5 times the time" in figure.get_suptitle()
    front = figure.alt.partition("leanest: ")[2]
    # float16 is not exact; together PyTorch's is the fastest, as fast as ONNX Runtime's as it comes
    assert [one.split(" ")[0] for one in front.split("; ")] == ["pytorch-together", "onnx-together", "onnx-tiled"]
    labels = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert {"pytorch", "onnx", "pytorch-together", "onnx-together", "onnx-tiled"} <= labels


def test_a_study_without_levers(tmp_path):
    done = fabricate(tmp_path / "study")
    found = [say(done) for say in (findings_levers.together, findings_levers.each, findings_levers.alone)]
    assert found == [findings_levers.NOT_MEASURED] * 3
    with pytest.raises(scaling.NotEnoughData, match="the levers were not measured"):
        figures.draw("levers", study.read(done.folder))
