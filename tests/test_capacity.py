"""The fitted models on costs that are made up and known, their answers both ways, and proof by the kernel."""

import numpy as np
import pandas as pd
import pytest

from udnet import capacity, guard, plans, scaling, trial
from udnet.__main__ import main
from udnet.memory import MIB

SIDES = (64, 128, 256, 512, 1024)
WHOLE, TILED, FILES = 60 * MIB, 70 * MIB, 35 * MIB
SLOPE, RATE = 1600, 2e-11


def made_up(variant, peak, seconds):
    """Rows as `scaling.costs` gives them."""
    return pd.DataFrame(
        {
            "variant": variant,
            "threads": 2,
            "height": side,
            "width": side,
            "pixels": side**2,
            "process_peak_bytes": float(peak(side)),
            "file_bytes": float(FILES),
            "first_seconds": seconds(side),
        }
        for side in SIDES
        for _ in range(2)
    )


def least(side):
    return plans.leanest(side, side, 2)


@pytest.fixture
def known(monkeypatch):
    costs = pd.concat(
        [
            made_up("onnx-lean", lambda side: WHOLE + SLOPE * side**2, lambda side: 1e-5 * side**2),
            made_up("onnx-tiled", lambda side: TILED + least(side).bytes, lambda s: RATE * least(s).multiply_adds),
            made_up("pytorch-compiled", lambda side: 1, lambda side: 1).head(2),  # one size alone
            made_up("onnx-tiled@512MiB", lambda side: 1, lambda side: 1),
        ]
    )
    monkeypatch.setattr(scaling, "costs", lambda study: costs)
    return "study"


def test_models_find_the_numbers_that_made_the_costs(known):
    models = capacity.models(known)
    assert list(models) == ["onnx-lean", "onnx-tiled"]
    lean, tiled = models.values()
    assert (lean.fixed, lean.slope, lean.files) == pytest.approx((WHOLE, SLOPE, FILES))
    assert (tiled.fixed, tiled.seconds_slope) == pytest.approx((TILED, RATE))
    assert not lean.tiled and tiled.tiled
    assert lean.peak(100, 300) == pytest.approx(WHOLE + SLOPE * 30_000)
    assert tiled.peak(100, 300) == pytest.approx(TILED + plans.leanest(104, 304, 2).bytes)


def test_sizes_that_were_held_out(known):
    table = capacity.held_out(known)
    assert set(table.variant) == {"onnx-lean", "onnx-tiled"} and len(table) == 2 * len(SIDES)
    assert table.error.abs().max() < 1e-6


def test_the_largest_picture_for_a_limit(known):
    table = capacity.plan(limit=512 * MIB, done=known).set_index("variant")
    lean = table.loc["onnx-lean"]
    assert lean.height % 8 == 0 and lean.peak_bytes <= 512 * MIB
    assert WHOLE + SLOPE * (lean.height + 8) ** 2 > 512 * MIB
    tiled = table.loc["onnx-tiled"]
    larger = range(int(tiled.height) + 8, int(tiled.height) + 800, 8)
    assert tiled.peak_bytes <= 512 * MIB and all(TILED + least(side).bytes > 512 * MIB for side in larger)
    assert list(table.index) == ["onnx-tiled", "onnx-lean"]


def test_the_least_limit_for_a_picture(known):
    table = capacity.plan(size=(1080, 1920), done=known).set_index("variant")
    assert table.peak_bytes["onnx-tiled"] == pytest.approx(TILED + plans.leanest(1080, 1920, 2).bytes)
    assert table.peak_bytes["onnx-lean"] - table.counted_bytes["onnx-lean"] == FILES


def test_the_fastest_for_both(known):
    table = capacity.plan(limit=512 * MIB, size=(1080, 1920), done=known)
    assert list(table.variant) == ["onnx-tiled"]
    table = capacity.plan(limit=8192 * MIB, size=(1080, 1920), done=known)
    assert set(table.variant) == {"onnx-lean", "onnx-tiled"} and table.seconds.is_monotonic_increasing
    assert capacity.plan(limit=80 * MIB, size=(1080, 1920), done=known).empty


def test_a_curve_with_steps_is_allowed_for(monkeypatch):
    costs = made_up("onnx", lambda side: (WHOLE + SLOPE * side**2) * (1.3 if side == 512 else 1), lambda side: side)
    monkeypatch.setattr(scaling, "costs", lambda study: costs)
    (model,) = capacity.models("study").values()
    assert model.excess > 0.1
    peak = model.peak(512, 512)
    assert not model.fits(512, 512, peak * 1.05) and model.fits(512, 512, peak * (1.01 + model.excess))


def test_the_command(known, monkeypatch, capsys):
    monkeypatch.setattr("udnet.study.read", lambda folder: known)
    assert main(["plan", "--size", "1080x1920"]) == 0
    assert "onnx-tiled 1080x1920" in capsys.readouterr().out
    assert main(["plan", "--limit", "80MiB", "--size", "1080x1920"]) == 1
    needs = np.ceil((TILED + plans.leanest(1080, 1920, 2).bytes) / MIB)
    said = capsys.readouterr().out
    assert said.startswith("Nothing keeps within 80 MiB: 1080x1920 takes ") and f"{needs:,.0f}"[:2] in said
    assert main(["plan"]) == 2
    assert capsys.readouterr().err == "udnet: error: give --limit, --size, or both\n"


def measured(variant, side):
    result = trial.run(trial.Trial(variant, side, side, 2, runs=0))
    rows = [row for row in result.rows if row["phase"] == "first"]
    return rows[0]["peak_bytes"], rows[0]["file_end_bytes"]


@pytest.mark.parametrize(("variant", "side"), [("onnx-tiled", 768), ("onnx-lean", 384)])
def test_predictions_hold_under_the_kernel(variant, side):
    if not guard.ControlGroup.possible():
        pytest.skip("this process may not make a memory control group")
    sizes = (96, 128, 160, 192) if variant == "onnx-lean" else (128, 256)
    peaks = {size: measured(variant, size) for size in sizes}
    rows = pd.DataFrame(
        {
            "variant": variant,
            "threads": 2,
            "height": size,
            "width": size,
            "pixels": size**2,
            "process_peak_bytes": float(peak),
            "file_bytes": float(files),
            "first_seconds": 1.0,
        }
        for size, (peak, files) in peaks.items()
    )
    table = capacity.prove(capacity.fit(rows), side, side)
    assert list(table.status) == list(table.expected) == ["ok", "oom"], table.to_string()


def test_proofs_are_kept_and_gone_on_with(known, monkeypatch, tmp_path):
    proved = []

    def prove(model, height, width, weights):
        proved.append((model.variant, height))
        return pd.DataFrame([(model.variant, height, width, 2, 1, "case", 1, "ok", "ok")], columns=capacity.COLUMNS)

    monkeypatch.setattr(capacity, "prove", prove)
    monkeypatch.setattr("udnet.study.read", lambda folder: known)
    with pytest.raises(scaling.NotEnoughData):
        capacity.read(tmp_path)
    capacity.run(tmp_path, [("onnx-lean", 16, 24), ("absent", 8, 8)], progress=False)
    table = capacity.run(tmp_path, [("onnx-lean", 16, 24), ("onnx-tiled", 32, 24)], progress=False)
    assert proved == [("onnx-lean", 16), ("onnx-tiled", 32)]
    assert list(capacity.read(tmp_path).variant) == list(table.variant) == ["onnx-lean", "onnx-tiled"]
