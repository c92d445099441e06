"""The fitted models on costs that are made up and known, their answers both ways, and proof by the kernel."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_publish import fabricate

from udnet import capacity, figures, findings_capacity, guard, plans, scaling, study, trial
from udnet.__main__ import main
from udnet.memory import MIB

SIDES = (64, 128, 256, 512, 1024)
WHOLE, TILED, FILES = 60 * MIB, 70 * MIB, 35 * MIB
LOADED = 65 * MIB
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
            "peak_bytes": float(peak(side)),
            "load_peak_bytes": float(LOADED),
            "process_peak_bytes": max(float(peak(side)), LOADED),
            "file_bytes": float(FILES),
            "first_seconds": seconds(side),
            "large": False,
        }
        for side in SIDES
        for _ in range(2)
    )


def least(side):
    return plans.leanest(side, side, 2)


def within(side):
    return plans.fit(side, side, 2, (1 - plans.ROOM) * 512 * MIB - LOADED - 8 * MIB)


@pytest.fixture
def known(monkeypatch):
    costs = pd.concat(
        [
            made_up("onnx-lean", lambda side: WHOLE + SLOPE * side**2, lambda side: 1e-5 * side**2),
            made_up("onnx-tiled", lambda side: TILED + least(side).bytes, lambda s: RATE * least(s).multiply_adds),
            made_up("pytorch-compiled", lambda side: 1, lambda side: 1).head(2),  # one size alone
            made_up("onnx-tiled@512MiB", lambda side: TILED + within(side).bytes, lambda side: 1),
        ]
    )
    monkeypatch.setattr(capacity, "costs", lambda study: costs)
    return "study"


def test_models_find_the_numbers_that_made_the_costs(known):
    models = capacity.models(known)
    assert list(models) == ["onnx-lean", "onnx-tiled"]
    lean, tiled = models.values()
    assert (lean.fixed, lean.slope, lean.files) == pytest.approx((WHOLE, SLOPE, FILES))
    assert tiled.fixed == pytest.approx(TILED)
    assert tiled.seconds(100, 300) == pytest.approx(RATE * plans.leanest(104, 304, 2).multiply_adds)
    assert lean.seconds(100, 300) == pytest.approx(1e-5 * 30_000)
    assert not lean.tiled and tiled.tiled
    assert lean.peak(100, 300) == pytest.approx(WHOLE + SLOPE * 30_000)
    assert lean.peak(16, 16) == LOADED, "no picture takes less than loading"
    assert lean.peak(2048, 2048) == pytest.approx(WHOLE + SLOPE * 2048**2)
    assert np.isnan(lean.peak(2048, 2056)), "more than twice the largest side"
    assert tiled.peak(100, 300) == pytest.approx(TILED + plans.leanest(104, 304, 2).bytes)


def test_sizes_that_were_held_out(known):
    table = capacity.held_out(known)
    assert set(table.variant) == {"onnx-lean", "onnx-tiled", "onnx-tiled@512MiB"} and len(table) == 3 * len(SIDES)
    assert table.error.abs().max() < 1e-6
    assert table.seconds_error[~table.variant.str.contains("@")].abs().max() < 1e-6


def test_time_goes_by_the_rates_of_the_sizes_beside_it(monkeypatch):
    """Large pictures are slower by the pixel; peaks are not fitted to them."""
    rows = made_up("onnx-lean", lambda side: WHOLE + SLOPE * side**2, lambda side: 1e-5 * side**2)
    slow = rows[rows.height == 1024].assign(height=4096, pixels=1024 * 4096, first_seconds=80.0, large=True)
    model = capacity.fit(pd.concat([rows, slow.assign(peak_bytes=1e12)]))
    assert model.seconds(1024, 4096) == pytest.approx(80)
    between = model.seconds(1024, 2048)
    assert between == pytest.approx(1024 * 2048 * (1e-5 * 80 / (1024 * 4096)) ** 0.5), "the mean of logarithms"
    assert model.seconds(4096, 4096) == pytest.approx(4 * 80), "beyond what was timed its rate stays"
    assert model.slope == pytest.approx(SLOPE)


def test_the_largest_picture_for_a_limit(known):
    table = capacity.plan(limit=512 * MIB, done=known).set_index("variant")
    lean = table.loc["onnx-lean"]
    usable = (1 - plans.ROOM) * (512 * MIB - capacity.BESIDE)
    assert lean.height % 8 == 0 and lean.peak_bytes <= usable < WHOLE + SLOPE * (lean.height + 8) ** 2
    tiled, floor = table.loc["onnx-tiled"], LOADED + 8 * MIB
    larger = range(int(tiled.height) + 8, int(tiled.height) + 800, 8)
    assert floor + least(int(tiled.height)).bytes <= usable
    assert all(floor + least(side).bytes > usable for side in larger)
    assert list(table.index) == ["onnx-tiled", "onnx-lean"]


def test_the_least_limit_for_a_picture(known):
    table = capacity.plan(size=(1080, 1920), done=known).set_index("variant")
    assert table.peak_bytes["onnx-tiled"] == pytest.approx(TILED + plans.leanest(1080, 1920, 2).bytes)
    assert table.peak_bytes["onnx-lean"] - table.counted_bytes["onnx-lean"] == FILES
    for name, limit in table.limit_bytes.items():
        assert limit % MIB == 0 and limit > table.peak_bytes[name]
        assert name in set(capacity.plan(limit, (1080, 1920), known).variant), "a limit that is said is enough"
        assert name not in set(capacity.plan(limit - MIB, (1080, 1920), known).variant), "and the least"


def test_the_fastest_for_both(known):
    table = capacity.plan(limit=512 * MIB, size=(1080, 1920), done=known)
    assert list(table.variant) == ["onnx-tiled"]
    table = capacity.plan(limit=8192 * MIB, size=(1080, 1920), done=known)
    assert set(table.variant) == {"onnx-lean", "onnx-tiled"} and table.seconds.is_monotonic_increasing
    assert capacity.plan(limit=80 * MIB, size=(1080, 1920), done=known).empty


def test_a_curve_with_steps_is_allowed_for(monkeypatch):
    costs = made_up("onnx", lambda side: (WHOLE + SLOPE * side**2) * (1.3 if side == 512 else 1), lambda side: side)
    monkeypatch.setattr(capacity, "costs", lambda study: costs)
    (model,) = capacity.models("study").values()
    assert model.excess > 0.1
    allowed = model.peak(512, 512) * (1 + model.excess)
    assert allowed < model.limit(512, 512) - capacity.BESIDE < allowed * 1.03


def test_the_command(known, monkeypatch, capsys):
    monkeypatch.setattr("udnet.study.read", lambda folder: known)
    assert main(["plan", "--size", "1080x1920"]) == 0
    assert "onnx-tiled 1080x1920" in " ".join(capsys.readouterr().out.split())
    assert main(["plan", "--limit", "80MiB", "--size", "1080x1920"]) == 1
    least = capacity.plan(size=(1080, 1920), done=known).limit_bytes.min() / MIB
    said = capsys.readouterr()
    assert not said.out
    assert said.err == f"udnet: nothing keeps within 80 MiB: 1080x1920 takes a limit of {least:.0f} MiB\n"
    assert main(["plan", "--limit", "512"]) == 2
    assert "'512' is less than 1 MiB: give a unit, as in 512MiB" in capsys.readouterr().err
    assert main(["plan"]) == 2
    assert capsys.readouterr().err == "udnet: error: give --limit, --size, or both\n"


def measured(variant, side):
    rows = {row["phase"]: row for row in trial.run(trial.Trial(variant, side, side, 2)).rows}
    return rows["load"], rows["first"], rows["steady"]


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
            **dict.fromkeys(("peak_bytes", "process_peak_bytes"), float(max(first["peak_bytes"], later["peak_bytes"]))),
            "load_peak_bytes": float(load["peak_bytes"]),
            "file_bytes": float(later["file_end_bytes"]),
            "first_seconds": 1.0,
            "large": False,
        }
        for size, (load, first, later) in peaks.items()
    )
    table = capacity.prove(capacity.fit(rows), variant, side, side)
    assert list(table.status) == list(table.expected) == ["ok", "oom"], table.to_string()


@pytest.mark.parametrize("variant", ["onnx-tiled", "pytorch-tiled"])
def test_the_least_limit_is_enough_for_a_photograph(variant, tmp_path):
    """What `plan` names, by the published study, `enhance` takes and keeps to, in a process of its own."""
    limit = int(capacity.models(study.read())[variant].limit(512, 512))
    Image.fromarray(trial.picture(512, 512)).save(tmp_path / "photo.png")
    code = (
        "import sys; from udnet import memory; from udnet.__main__ import main\n"
        "code = main(['enhance', *sys.argv[1:]]); print(code, memory.lifetime_peak())"
    )
    options = ["--variant", variant, "--memory-limit", str(limit), "--threads", "2"]
    run = [sys.executable, "-c", code, tmp_path / "photo.png", tmp_path / "out.png", *options]
    said = subprocess.run(run, capture_output=True, text=True, check=True)
    code, peak = said.stdout.split()[-2:]
    assert code == "0", said.stderr
    assert limit * 0.8 < int(peak) <= limit


def test_proofs_are_kept_and_gone_on_with(known, monkeypatch, tmp_path):
    proved = []

    def prove(model, variant, height, width, weights):
        assert model.variant == variant.partition("@")[0]
        proved.append((variant, height))
        return pd.DataFrame([(variant, height, width, 2, 1, "case", 1, "ok", "ok")], columns=capacity.COLUMNS)

    monkeypatch.setattr(capacity, "prove", prove)
    monkeypatch.setattr("udnet.study.read", lambda folder: known)
    with pytest.raises(scaling.NotEnoughData):
        capacity.read(tmp_path)
    capacity.run(tmp_path, [("onnx-lean", 16, 24), ("absent", 8, 8)], progress=False)
    table = capacity.run(tmp_path, [("onnx-lean", 16, 24), ("onnx-tiled@512MiB", 32, 24)], progress=False)
    assert proved == [("onnx-lean", 16), ("onnx-tiled@512MiB", 32)]
    assert list(capacity.read(tmp_path).variant) == list(table.variant) == ["onnx-lean", "onnx-tiled@512MiB"]


# In tables, sentences and figures

COSTS = {  # MiB loaded, fixed, bytes a pixel, microseconds a pixel
    "onnx": (60, 60, 4000, 5),
    "onnx-lean": (60, 60, 1600, 8),
    "onnx-tiled": (70, 90, 0, 20),
}


@pytest.fixture
def done(tmp_path):
    """A study with large pictures and proofs; all that it says follows from `COSTS`."""
    made = fabricate(tmp_path / "study", COSTS, sides=(64, 128, 256, 512, 1024), weights="weights: seeded")
    fabricate(made.folder / "large", {"onnx-tiled": (70, 250, 0, 20), "onnx-lean": (60, 60, 1600, 8)}, sides=(2880,))
    path = made.folder / "large" / "trials.csv"
    trials = pd.read_csv(path)
    trials[["height", "width"]] = 2160, 3840
    trials.to_csv(path, index=False)
    rows = [
        ("onnx-lean", 896, 896, 2, 1000.0, "10% over", 1100, "ok", "ok"),
        ("onnx-lean", 896, 896, 2, 1000.0, "25% under", 750, "oom", "ok"),
    ]
    pd.DataFrame(rows, columns=capacity.COLUMNS).to_csv(made.folder / capacity.FILE, index=False)
    return made


def test_what_a_frame_takes(done):
    said = findings_capacity.frame(done)
    # by hand: 60 MiB and 1600 bytes for each of 8.29 million pixels; 3 runs of 8 and 20 microseconds each, at 2880x2880
    assert (
        said.startswith("**2160x3840 in 250 MiB.**") and "12.4 GiB and 199 s with `onnx-lean`, by 2 runs each." in said
    )
    assert "It takes 498 s. Whole" in said


def test_how_near_the_tiled_output_is_at_the_largest_size(done):
    assert "whose output" not in findings_capacity.frame(done)
    for folder, size, off in ((done.folder, 264, 1e-6), (done.folder / "large", 1080, 2.4e-6)):
        rows = [("pytorch", "", size, size, 0.0, ""), ("onnx-tiled", "", size, size, off, "")]
        columns = ["variant", "weights", "height", "width", "largest_difference", "error"]
        pd.DataFrame(rows, columns=columns).to_csv(folder / "parity.csv", index=False)
    said = findings_capacity.frame(study.read(done.folder))
    assert "whose output is within 2e-06 of the whole image's at 1080x1080. It takes" in said


def test_a_prediction_that_is_off_is_named(done):
    said = findings_capacity.predicted(done)
    assert "`onnx-tiled` at 1024x1024 (+" in said and "`onnx-lean`" not in said
    said = findings_capacity.proved(done)
    assert "1 of 2 runs ended as predicted" in said and said.endswith("`onnx-lean` at 896x896, 25% under (ok).")
    assert list(findings_capacity.proofs(done)["as predicted"]) == [True, False]


def test_tables_of_what_fits(done):
    least = findings_capacity.least(done)
    # by hand: 60 MiB and 1600 bytes a pixel, 2% left free, 10 MiB for photographs
    assert least.loc["onnx-lean", "512x512"] == "480 (460)"
    assert least.loc["onnx-lean", "4320x7680"] == "", "too far beyond what was measured"
    assert findings_capacity.largest(done).loc["onnx-lean", "512 MiB"] == "528x528"
    fastest = findings_capacity.fastest(done)
    # by hand: measured, 3 runs of 5 microseconds a pixel
    assert fastest.loc["512x512", "2,048 MiB"] == "onnx, 3.9 s"
    # by hand: 6.3 s of the whole image in 460 MiB; the tiled schedule keeps all maps in that
    assert fastest.loc["512x512", "512 MiB"].startswith("onnx-tiled, ~4.3")


def test_a_study_without_large_pictures_says_so(tmp_path):
    done = fabricate(tmp_path / "study")
    assert findings_capacity.frame(done) == "No frame of 2160x3840 was measured in this study."
    assert findings_capacity.proved(done) == "Nothing was run under a limit in this study."
    for finding in (findings_capacity.price, findings_capacity.flat, findings_capacity.tiled, findings_capacity.deploy):
        assert isinstance(finding(done), str)


def test_the_figures_say_what_was_predicted_and_what_happened(done):
    figure = figures.draw("predictions", done)
    assert "1 of 2 limits did as predicted" in figure.get_suptitle()
    figure = figures.draw("sizes", done)
    assert figure.axes[0].get_title(loc="left").startswith("A frame of 2160x3840 takes 250 MiB strip by strip")
    assert "onnx-lean 12.4 GiB, measured" in figure.alt
