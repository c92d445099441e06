"""What a model will need, forecast from small pictures and held against trials at three times their sides and more."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto
from onnx_models import Builder, attention, classifier, denoiser, dense, mobile, pyramid, unet, upscaler

from udnet import Error, NotMeasured
from udnet.__main__ import main
from udnet.experiments import forecast
from udnet.experiments.forecast import Forecast
from udnet.network import onnx_file
from udnet.system.memory import MIB
from udnet.trials import trial

LEAN, HEAP = forecast.LEAN, "onnx-no-arena"


def sizes(path, *size):
    return forecast._sizes(onnx_file.read(path), size)


# Which pictures are tried


def test_small_pictures_have_a_third_of_the_sides_at_the_most(tmp_path):
    small = sizes(denoiser(tmp_path / "m.onnx"), 600, 900)
    assert small == [(200, 300), (171, 257), (150, 225), (120, 180)]


def test_small_pictures_are_of_sides_that_the_file_takes(tmp_path):
    small = sizes(unet(tmp_path / "m.onnx"), 640, 960)
    assert small[0] == (208, 320)
    assert all(side % 8 == 0 for size in small for side in size)


def test_one_side_may_be_fixed(tmp_path):
    small = sizes(classifier(tmp_path / "m.onnx", shape=(1, 3, 48, "width")), 48, 1920)
    assert small == [(48, 640), (48, 548), (48, 480), (48, 384)]


def test_the_larger_the_picture_the_smaller_the_share_that_is_tried(tmp_path, monkeypatch):
    path = denoiser(tmp_path / "m.onnx")
    monkeypatch.setattr(forecast, "TRIED", forecast._tensors(onnx_file.read(path), (100, 100)))
    assert sizes(path, 900, 900)[0] == pytest.approx((100, 100), abs=1)
    with pytest.raises(Error, match=r"1300x1300 its tensors take .* at once: beyond what can be known"):
        sizes(path, 1300, 1300)


def test_what_small_pictures_cannot_tell(tmp_path):
    with pytest.raises(Error, match="takes 48x192 alone, and nothing smaller can be tried: measure it"):
        sizes(classifier(tmp_path / "m.onnx", shape=(1, 3, 48, 192)), 48, 192)
    with pytest.raises(Error, match="24x24 is too small for a forecast: measure it"):
        sizes(unet(tmp_path / "u.onnx"), 24, 24)


# The line, and what is said


def test_the_line_is_as_near_to_small_points_as_to_large_ones():
    points = [(100 * MIB, 210 * MIB), (50 * MIB, 110 * MIB), (10 * MIB, 30 * MIB)]
    assert forecast._at(1000 * MIB, points) == pytest.approx(2010 * MIB)
    off = [*points[:2], (10 * MIB, 33 * MIB)]  # a tenth more of the smallest moves the line
    assert forecast._at(0, off) > 11 * MIB


def test_the_power_that_fits_best_is_taken():
    square = [(size * MIB, (5 + size**2 / 10) * MIB) for size in (10, 20, 30)]
    assert forecast._at(90 * MIB, square, (1, 2)) == pytest.approx(815 * MIB)
    line = [(size * MIB, (5 + size / 10) * MIB) for size in (10, 20, 30)]
    assert forecast._at(90 * MIB, line, (1, 2)) == pytest.approx(14 * MIB)


def test_where_other_tensors_are_the_most_in_a_small_picture_little_is_sure(tmp_path):
    """The middle of this graph is of one size: it is what small pictures take."""
    build = Builder()
    middle = build.constant(np.array([1, 3, 256, 256]))
    x = build.conv(build.add("Resize", "x", "", "", middle, mode="linear"), 3, 32)
    x = build.add("Resize", build.conv(x, 32, 3), "", "", build.add("Shape", "x"), mode="linear")
    path = build.save(tmp_path / "m.onnx", {"x": (TensorProto.FLOAT, (1, 3, "h", "w"))}, {x: TensorProto.FLOAT})
    for one, peak in held(path, (1440, 1920), LEAN):
        assert one.low_bytes <= peak <= one.high_bytes, peak / MIB
        assert one.low_bytes < 0.8 * one.peak_bytes


def test_what_shrinks_with_the_picture_is_no_line():
    assert forecast._at(1000 * MIB, [(100 * MIB, 1 * MIB), (50 * MIB, 2 * MIB)]) < 4 * MIB


@pytest.mark.parametrize(("limit", "said"), [(89, "no"), (90, "perhaps"), (119, "perhaps"), (120, "yes")])
def test_whether_it_fits(limit, said):
    one = Forecast("onnx", 8, 8, 100, 90, 120, 50, ((2, 2),))
    assert one.fits(limit) == said


def test_a_table_for_a_terminal():
    fine = Forecast("onnx", 64, 64, 100 * MIB, 90 * MIB, 120.2 * MIB, 50 * MIB, ((20, 20), (16, 16)))
    bad = Forecast("onnx-lean", 64, 64, *[np.nan] * 3, 0, ((20, 20), (16, 16)), "onnx-lean at 20x20: no")
    text = forecast.as_text([fine, bad], 64 * MIB)
    rows = [line.split() for line in text.splitlines()]
    assert rows[1:3] == [["onnx", "100", "90", "to", "120", "121", "no"], ["onnx-lean", "-", "-", "-", "not", "known"]]
    assert "\nonnx-lean at 20x20: no\n" in text
    assert "rests on pictures of 20x20, 16x16 and on the graph: 50 MiB of tensors at once" in text
    assert "the graph's tensors cannot be counted" in forecast.as_text([replace(fine, tensors_bytes=0)])
    other = replace(bad, variant="onnx", error="onnx/4 at 20x20: no")
    assert forecast.as_text([bad, fine, other]).splitlines()[-2] == "onnx-lean, onnx at 20x20: no", "told once"
    assert forecast.as_text([bad, other], 64 * MIB) == "onnx-lean, onnx at 20x20: no", (
        "and alone where nothing is known"
    )


# Held against trials


def held(path, size, *names):
    """Each forecast, and the middle peak of trials at that size: three where the heap makes them differ."""
    for one in forecast.forecast(path, size, names, threads=1):
        assert one.error == ""
        assert one.tried[0][0] * 3 <= size[0] and one.tried[0][1] * 3 <= size[1]
        asked = trial.Trial(one.variant, *size, 1, runs=1, model=str(path))
        results = [trial.run(asked) for _ in range(3 if one.variant == HEAP else 1)]
        yield one, np.median([max(row["peak_bytes"] for row in result.rows) for result in results])


def test_a_lean_session_within_a_tenth(tmp_path):
    ((one, peak),) = held(denoiser(tmp_path / "m.onnx", 24, 4), (480, 640), LEAN)
    assert one.peak_bytes == pytest.approx(peak, rel=0.1)
    assert one.low_bytes < one.peak_bytes < one.high_bytes
    assert one.tensors_bytes > 50 * MIB


def test_a_trial_that_fails_is_said(tmp_path, monkeypatch):
    path = denoiser(tmp_path / "m.onnx")
    failed = trial.Result([{"status": "oom", "error": "killed at its memory limit"}])
    monkeypatch.setattr(trial, "run", lambda one: failed)
    (one,) = forecast.forecast(path, (300, 300), [LEAN], threads=1)
    assert one.error == "onnx-lean at 60x60: killed at its memory limit"
    assert np.isnan(one.peak_bytes)
    assert one.fits(10**12) == "not known"


def test_a_graph_that_cannot_be_counted(tmp_path, monkeypatch):
    path = denoiser(tmp_path / "m.onnx", 8, 2)

    def uncounted(*_):
        raise Error("its bytes cannot be counted")

    monkeypatch.setattr(forecast.graphs, "read", uncounted)
    (one,) = forecast.forecast(path, (300, 300), [LEAN], threads=1)
    assert (one.error, one.tensors_bytes) == ("", 0)
    assert one.peak_bytes > 30 * MIB
    known = trial.run(trial.Trial(LEAN, 60, 60, 1, runs=0, model=str(path))).rows[2]["rss_end_bytes"]
    most = one.high_bytes - forecast.APART - known
    assert most == pytest.approx(2 * (one.peak_bytes - known), abs=2 * MIB), "twice what the picture adds"


def test_from_a_shell(tmp_path, capsys, monkeypatch):
    path = str(denoiser(tmp_path / "m.onnx", 8, 2))
    monkeypatch.setattr(forecast, "variants", lambda: [LEAN])
    assert main(["forecast", path, "--size", "120x160", "--limit", "1GiB", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "onnx-lean" in said and "fits 1,024 MiB" in said and "yes" in said
    assert main(["forecast", path, "--size", "120x160", "--limit", "2MiB", "--threads", "1"]) == 1, "nothing fits"
    assert capsys.readouterr().out.splitlines()[1].endswith(" no")
    assert main(["forecast", path, "--size", "2x2"]) == 2
    assert "too small for a forecast" in capsys.readouterr().err


MODELS = {  # kinds of networks, and a size of some hundred MiB; the last four were not there when the rules were found
    "unet": (unet, (720, 960)),
    "denoiser": (denoiser, (900, 1200)),
    "classifier": (classifier, (2048, 2048)),
    "mobile": (mobile, (1400, 1800)),
    "upscaler": (upscaler, (900, 1100)),
    "dense": (dense, (900, 1200)),
    "pyramid": (pyramid, (1408, 1408)),
}


@pytest.mark.slow
def test_what_grows_with_the_square_of_the_pixels_and_cannot_be_counted(tmp_path):
    for one, peak in held(attention(tmp_path / "m.onnx"), (768, 768), "onnx", HEAP, LEAN):
        assert one.tensors_bytes == 0 and one.peak_bytes == pytest.approx(peak, rel=0.2)
        assert one.low_bytes <= peak <= one.high_bytes, (one.variant, peak / MIB)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_variant_of_kinds_of_networks(tmp_path, name):
    build, size = MODELS[name]
    for one, peak in held(build(tmp_path / "m.onnx"), size, "onnx", "onnx-no-pattern", HEAP, LEAN):
        if one.variant in (HEAP, LEAN):
            assert one.peak_bytes == pytest.approx(peak, rel=0.1 if one.variant == LEAN else 0.2)
        assert one.low_bytes <= peak <= one.high_bytes, (one.variant, peak / MIB)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("ppocr_det.onnx", (1536, 1536)), ("ppocr_cls.onnx", (768, 1536))])
def test_every_variant_of_models_of_others(shared, name, size):
    for one, peak in held(shared / "models" / name, size, "onnx", "onnx-no-pattern", HEAP, LEAN):
        if one.variant == LEAN:
            assert one.peak_bytes == pytest.approx(peak, rel=0.1)
        assert one.low_bytes <= peak <= one.high_bytes, (one.variant, peak / MIB)


def test_forecasts_are_held_against_trials_in_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr(forecast.exporters, "made", lambda *_: denoiser(tmp_path / "m.onnx", 8, 2))
    monkeypatch.setattr(forecast, "variants", lambda: [LEAN])
    with pytest.raises(NotMeasured):
        forecast.read(tmp_path)
    cases = {("dynamo-18", 120, 160): 2, ("dynamo-18", 60, 60): 1}
    forecast.run(tmp_path, dict([*cases.items()][:1]), progress=False)
    before = (tmp_path / forecast.FILE).read_bytes()
    assert b"." not in before.partition(b"\n")[2], "bytes are whole"
    monkeypatch.setattr(forecast.guard, "safe_limit", lambda: 0)
    table = forecast.run(tmp_path, cases, progress=False)
    assert (tmp_path / forecast.FILE).read_bytes().startswith(before), "what is there is kept"
    assert list(table.trials) == [2, 0]  # what will not fit is forecast alone
    assert table.measured_bytes.notna().tolist() == [True, False]
    assert table.peak_bytes[0] == pytest.approx(table.measured_bytes[0], rel=0.1)


def test_a_trial_that_fails_where_its_forecast_fits_is_said_in_the_table(tmp_path, monkeypatch):
    fine = Forecast("mnn", 64, 64, 100.0, 90.0, 120.0, 50, ((20, 20), (16, 16)))
    monkeypatch.setattr(forecast, "forecast", lambda *_, **__: [fine])
    monkeypatch.setattr(forecast.exporters, "made", lambda *_: tmp_path / "m.onnx")
    failed = trial.Result([{"status": "error", "error": "ended by SIGSEGV"}])
    monkeypatch.setattr(trial, "run", lambda one: failed)
    (row,) = forecast.run(tmp_path, {("dynamo-18", 64, 64): 2}, progress=False).itertuples()
    assert (row.peak_bytes, row.trials, row.error) == (100, 0, "ended by SIGSEGV")
    assert np.isnan(row.measured_bytes)
