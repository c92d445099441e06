"""The fitted models on costs that are made up and known, their answers both ways, and proof by the kernel."""

import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from test_publish import fabricate

from udnet import Error, NotMeasured
from udnet.__main__ import main
from udnet.analysis import capacity, prediction
from udnet.experiments import proofs
from udnet.pictures import reference
from udnet.system import guard, machine
from udnet.system.memory import MIB
from udnet.tiled import plans
from udnet.trials import tables, trial

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
    return plans.fit(side, side, 2, (1 - plans.ROOM) * 512 * MIB - LOADED - 8 * MIB, winograd=True)


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
    monkeypatch.setattr(capacity, "disk", lambda study: 0)
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


def test_what_grows_with_the_square_of_the_pixels_is_followed_so(monkeypatch):
    rows = made_up("onnx-lean", lambda side: WHOLE + side**4 / 100, lambda side: 1)
    monkeypatch.setattr(capacity, "costs", lambda _: rows)
    monkeypatch.setattr(capacity, "disk", lambda _: 0)
    model = capacity.models("study")["onnx-lean"]
    assert model.power == 2 and model.peak(1024, 2048) == pytest.approx(WHOLE + 2**42 / 100)


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
    usable = (1 - plans.ROOM) * (512 * MIB - prediction.BESIDE)
    assert lean.height == 520, "by hand: 60 MiB and 1600 bytes a pixel, 2% left free, 18 MiB for photographs"
    assert lean.peak_bytes <= usable < WHOLE + SLOPE * (lean.height + 8) ** 2
    tiled, floor = table.loc["onnx-tiled"], LOADED + 8 * MIB
    larger = range(int(tiled.height) + 8, int(tiled.height) + 800, 8)
    assert floor + least(int(tiled.height)).bytes <= usable
    assert all(floor + least(side).bytes > usable for side in larger)
    assert list(table.index) == ["onnx-tiled", "onnx-lean"]


def test_the_least_limit_for_a_picture(known):
    table = capacity.plan(size=(1080, 1920), done=known).set_index("variant")
    assert table.peak_bytes["onnx-tiled"] == pytest.approx(TILED + plans.leanest(1080, 1920, 2).bytes)
    assert table.peak_bytes["onnx-lean"] - table.counted_bytes["onnx-lean"] == FILES
    by_hand = capacity.models(known)["onnx-lean"].limit(512, 512) / MIB
    assert by_hand == 488, "60 MiB and 1600 bytes a pixel are 460, with 2% left free and 18 MiB for photographs"
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
    monkeypatch.setattr(capacity, "disk", lambda study: 0)
    (model,) = capacity.models("study").values()
    assert model.excess > 0.1
    allowed = model.peak(512, 512) * (1 + model.excess)
    assert allowed < model.limit(512, 512) - prediction.BESIDE < allowed * 1.03


def test_the_command(known, monkeypatch, capsys):
    monkeypatch.setattr(prediction, "read", lambda: capacity.models(known))
    assert main(["plan", "--size", "1080x1920"]) == 0
    assert "onnx-tiled 1080x1920" in " ".join(capsys.readouterr().out.split())
    assert main(["plan", "--limit", "80MiB", "--size", "1080x1920"]) == 1
    least = capacity.plan(size=(1080, 1920), done=known).set_index("variant").limit_bytes["onnx-tiled"] / MIB
    said = capsys.readouterr()
    assert not said.out
    takes = f"1080x1920 takes a limit of {least:.0f} MiB, by onnx-tiled"
    assert said.err == f"udnet: nothing keeps within 80 MiB: {takes}\n"
    assert main(["plan", "--limit", "512"]) == 2
    assert "'512' is less than 1 MiB, or none: give a size such as 512MiB" in capsys.readouterr().err
    assert main(["plan"]) == 2
    assert capsys.readouterr().err == "udnet: error: give --limit, --size, or both\n"


def test_the_published_models_are_those_of_the_published_tables():
    """To renew them: udnet.pages.publish.renew_models(), then renew_checksums."""
    assert prediction.read() == capacity.models(tables.read())
    asked = {"limit": 512 * MIB, "size": (1080, 1920)}
    pd.testing.assert_frame_equal(capacity.plan(**asked), capacity.plan(**asked, done=tables.read()))
    with pytest.raises(NotMeasured, match="no model of any variant"):
        capacity.plan(**asked, threads=3)


@pytest.mark.parametrize("size", [(1080, 1920), (2160, 3840)])
def test_a_higher_limit_is_never_slower(size):
    for model in filter(lambda one: one.tiled, prediction.read().values()):
        least = model.limit(*size) - prediction.BESIDE
        seconds = [model.seconds(*size, limit) for limit in np.geomspace(least, 40 * least, 60)]
        assert seconds == sorted(seconds, reverse=True), model.variant


def test_what_a_size_alone_costs_is_what_it_costs_in_its_least_limit():
    known, size = prediction.read(), (2160, 3840)
    for one in prediction.ask(known, size=size):
        assert prediction.ask({one.variant: known[one.variant]}, one.limit_bytes, size) == [one]


def test_models_are_kept(known, tmp_path):
    prediction.write(capacity.models(known), tmp_path)
    assert prediction.read(tmp_path) == capacity.models(known)
    for damage in ("{}", "{", '{"models": [{"variant": "onnx"}]}', '{"models": 1}', None):
        path = tmp_path / prediction.FILE
        path.unlink() if damage is None else path.write_text(damage)
        with pytest.raises(Error, match=r"models\.json: damaged") as caught:
            prediction.read(tmp_path)
        assert "\n" not in str(caught.value)


def test_with_a_scratch_file_the_disk_decides_too(known, monkeypatch):
    rate = 1e9
    monkeypatch.setattr(capacity, "disk", lambda study: rate)
    models = capacity.models(known)
    assert list(models) == ["onnx-lean", "onnx-tiled", "onnx-scratch"]
    tiled, scratch = models["onnx-tiled"], models["onnx-scratch"]
    assert scratch.tiled and (scratch.fixed, scratch.floor) == (tiled.fixed, tiled.floor)
    size, limit = (1080, 1920), 400 * MIB
    plan, (bound,) = scratch.plan(*size), {scratch._rate(1)}
    assert plan.scratch_bytes and scratch.peak(*size) == scratch.fixed + plan.bytes
    slowest = [max(plan.work[name] * bound + moved / plans.COPIED, moved / rate) for name, moved in plan.moved.items()]
    assert scratch.seconds(*size) == pytest.approx(sum(slowest))
    for one in (None, limit):
        assert scratch.seconds(*size, one) < tiled.seconds(*size, one)
    (answer,) = (one for one in prediction.ask(models, limit, size) if one.variant == "onnx-scratch")
    assert answer.scratch_bytes == scratch.plan(*size, limit - prediction.BESIDE).scratch_bytes > 0
    slow = replace(scratch, disk=1e6)
    assert slow.plan(*size).scratch_bytes == 0 and slow.plan(*size, limit) == tiled.plan(*size, limit)


def test_trials_with_a_scratch_file_lie_in_a_folder_of_their_own(known, monkeypatch, tmp_path):
    done = SimpleNamespace(folder=tmp_path, machine={})
    with pytest.raises(NotMeasured, match="no trial had a scratch file"):
        capacity.with_scratch(done)
    (tmp_path / capacity.SCRATCH).mkdir()
    beside = SimpleNamespace(machine={"disk_bytes_per_second": 5e8})
    monkeypatch.undo()
    monkeypatch.setattr(tables, "read", lambda folder: beside)
    monkeypatch.setattr(
        capacity, "costs", lambda _: made_up("onnx-tiled", lambda side: TILED + least(side).bytes, float)
    )
    costs, models = capacity.with_scratch(done)
    assert len(costs) == 2 * len(SIDES) and capacity.disk(done) == 5e8
    assert {name: model.disk for name, model in models.items()} == {"onnx-tiled": 0, "onnx-scratch": 5e8}
    assert models["onnx-scratch"].fixed == models["onnx-tiled"].fixed == pytest.approx(TILED)


def test_a_study_is_asked_by_its_own_tables(known, monkeypatch, capsys):
    monkeypatch.setattr(tables, "read", lambda folder: known)
    assert main(["plan", "--size", "1080x1920", "--study", "of mine"]) == 0
    assert "onnx-tiled" in capsys.readouterr().out


def test_a_table_for_a_terminal_marks_what_is_beyond_the_machine(monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: (600 * MIB, 1))
    rows = [(1024 * MIB, 1.0), (512 * MIB, 1234.56)]
    answers = [prediction.Answer("onnx", 100, 2000, limit, limit - 1, MIB, seconds, 7 * MIB) for limit, seconds in rows]
    head, first, last, note, *_ = prediction.as_text(answers, 2048 * MIB).splitlines()
    assert (
        head == "     variant      picture least limit, MiB peak with 2,048 MiB of it counted scratch, MiB      seconds"
    )
    assert (
        first
        == "        onnx     100x2000              512                 512             1            7      1,234.6"
    )
    assert (
        last == "        onnx     100x2000           1,024*               1,024             1            7          1.0"
    )
    assert note == "* more than this machine's 600 MiB"
    assert "*" not in prediction.as_text(answers[1:])
    assert prediction.as_text(pd.DataFrame(answers).itertuples()) == prediction.as_text(answers)


def measured(variant, side, weights):
    one = trial.Trial(variant, side, side, 2, runs=1, weights=weights)
    rows = {row["phase"]: row for row in trial.run(one).rows}
    return rows["load"], rows["first"], rows["steady"]


@pytest.mark.parametrize(("variant", "side"), [("onnx-tiled", 224), ("onnx-lean", 256)])
def test_predictions_hold_under_the_kernel(variant, side, any_weights):
    if not guard.ControlGroup.possible():
        pytest.skip("this process may not make a memory control group")
    sizes = (96, 128, 160, 192) if variant == "onnx-lean" else (64, 112)
    peaks = {size: measured(variant, size, any_weights) for size in sizes}
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
    table = proofs.prove(capacity.fit(rows), variant, side, side, any_weights)
    assert list(table.status) == list(table.expected) == ["ok", "oom"], table.to_string()


@pytest.mark.parametrize("variant", ["onnx-tiled", "pytorch-tiled"])
def test_the_least_limit_is_enough_for_a_photograph(variant, tmp_path, any_weights):
    """What `plan` names, by the published study, `enhance` takes and keeps to, in a process of its own."""
    limit = int(prediction.read()[variant].limit(256, 256))
    Image.fromarray(reference.picture(256, 256)).save(tmp_path / "photo.png")
    code = (
        "import sys; from udnet.system import memory; from udnet.__main__ import main\n"
        "code = main(['enhance', *sys.argv[1:]]); print(code, memory.lifetime_peak())"
    )
    options = ["--variant", variant, "--memory-limit", str(limit), "--threads", "2"]
    options += ["--weights", any_weights] if any_weights else []
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
        return pd.DataFrame([(variant, height, width, 2, 1, "case", 1, "ok", "ok")], columns=proofs.COLUMNS)

    monkeypatch.setattr(proofs, "prove", prove)
    monkeypatch.setattr(tables, "read", lambda folder: known)
    with pytest.raises(NotMeasured):
        proofs.read(tmp_path)
    proofs.run(tmp_path, [("onnx-lean", 16, 24), ("absent", 8, 8)], progress=False)
    table = proofs.run(tmp_path, [("onnx-lean", 16, 24), ("onnx-tiled@512MiB", 32, 24)], progress=False)
    assert proved == [("onnx-lean", 16), ("onnx-tiled@512MiB", 32)]
    assert list(proofs.read(tmp_path).variant) == list(table.variant) == ["onnx-lean", "onnx-tiled@512MiB"]


# Studies with large pictures


def test_large_pictures_are_marked_and_their_parity_is_there(tmp_path):
    done = fabricate(tmp_path / "study", sides=(256, 512))
    assert not capacity.costs(done).large.any()
    fabricate(done.folder / "large", {"onnx-lean": (60, 60, 1600, 8)}, sides=(2880,))
    beside = {"onnx-lean": (60, 60, 1600, 8), "onnx-scratch": (60, 60, 100, 8)}
    fabricate(done.folder / "scratch", beside, sides=(2880,))
    for folder, names, size, off in (
        (done.folder, ["onnx-lean"], 264, 1e-6),
        (done.folder / "large", ["onnx-lean"], 1080, 2.4e-6),
        (done.folder / "scratch", ["onnx-lean", "onnx-scratch"], 264, 3e-6),
    ):
        row = {"weights": "", "height": size, "width": size, "largest_difference": off, "error": ""}
        pd.DataFrame([{"variant": name} | row for name in names]).to_csv(folder / "parity.csv", index=False)
    done = tables.read(done.folder)
    costs = capacity.costs(done)
    assert costs.groupby("large").side.max().to_dict() == {False: 512, True: 2880}
    ran = capacity.ran(done)
    assert ran.variant.tolist() == costs.variant.tolist() + ["onnx-scratch"] * 2, "what ran there alone"
    assert capacity.parity(done).largest_difference.tolist() == [1e-6, 2.4e-6, 3e-6], "and here"


def test_the_largest_picture_that_a_study_can_tell_of_is_marked(tmp_path):
    known = capacity.models(fabricate(tmp_path / "study"))
    edge, larger = (prediction.ask(known, limit * MIB) for limit in (8192, 16384))
    assert {(one.height, one.or_more) for one in edge} == {(1024, True)}, "twice the largest side"
    assert [(one.height, one.width) for one in edge] == [(one.height, one.width) for one in larger]
    assert not any(one.or_more for one in prediction.ask(known, 8192 * MIB, (1024, 1024))), "it was asked for"
    assert not any(one.or_more for one in prediction.ask(known, 512 * MIB))
    text = prediction.as_text(edge)
    assert "1024x1024 or more" in text and "or more: 2 times the largest side of the study" in text
    assert "or more" not in prediction.as_text(prediction.ask(known, 512 * MIB))


def test_a_picture_beyond_what_a_study_can_tell_is_one_line(tmp_path, monkeypatch, capsys):
    done = fabricate(tmp_path / "study")
    whole = {name: one for name, one in capacity.models(done).items() if not one.tiled}
    monkeypatch.setattr(capacity, "models", lambda _: whole)
    for limit in ([], ["--limit", "1GiB"]):
        assert main(["plan", "--size", "1088x1088", "--study", str(done.folder), *limit]) == 2
        said = "1088x1088 is beyond 2 times the largest side of the study: study larger pictures, or ask forecast"
        assert capsys.readouterr().err == f"udnet: error: {said}\n"


def test_a_study_of_few_sizes_has_no_models(tmp_path, capsys):
    done = fabricate(tmp_path / "study", sides=(64, 128))
    with pytest.raises(NotMeasured, match="no variant at 4 sizes"):
        capacity.models(done)
    assert main(["plan", "--size", "64x64", "--study", str(done.folder)]) == 2
    said = f"{done.folder}: no variant at 4 sizes: run a grid that has as many; why trials failed is in {done.folder}"
    assert capsys.readouterr().err == f"udnet: error: {said}/trials.csv\n"
    with pytest.raises(NotMeasured, match="nothing was proved"):
        proofs.read(done.folder)
