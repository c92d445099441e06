"""Fits with known answers."""

import numpy as np
import pandas as pd
import pytest

from udnet import NotMeasured
from udnet.analysis import scaling

SIDES = np.array([64, 128, 256, 512, 1024, 2048])


def frame(fixed, slope, noise=0.0, repeats=5, seed=7):
    pixels = np.repeat(SIDES.astype(float) ** 2, repeats)
    values = (fixed + slope * pixels) * (1 + noise * np.random.default_rng(seed).standard_normal(len(pixels)))
    return pd.DataFrame({"pixels": pixels, "peak_bytes": values})


def test_a_line_without_noise_is_found_exactly():
    fit = scaling.fit(frame(50e6, 2300))
    assert fit.fixed == pytest.approx(50e6, rel=1e-9) and fit.slope == pytest.approx(2300, rel=1e-9)
    assert fit.worst == pytest.approx(0, abs=1e-9)


def test_the_excess_over_a_line_is_that_of_the_size_furthest_above_it():
    # 100 + 1 a pixel: 200, 400 and 1000
    fit = scaling.Fit(100, 1, np.empty((0, 2)), np.array([100, 300, 900]), np.array([220, 320, 1000]))
    assert (fit.excess, fit.worst) == (pytest.approx(0.1), pytest.approx(0.2))


def test_equal_trials_are_compared_largest_with_smallest():
    case = {"variant": "a", "height": 8, "width": 8, "threads": 2}
    rows = [case | {"peak_bytes": peak} for peak in (100, 104, 110)]
    alone = case | {"height": 16, "peak_bytes": 7}
    assert list(scaling.spread(pd.DataFrame([*rows, alone]))) == [pytest.approx(0.1)]
    with pytest.raises(NotMeasured, match="no repeats"):
        scaling.spread(pd.DataFrame([alone]))


def test_intervals_hold_the_truth_as_often_as_they_say_or_nearly():
    fits = [scaling.fit(frame(50e6, 2300, 0.03, seed=seed)) for seed in range(15)]
    held = [fit.slope_estimate.low < 2300 < fit.slope_estimate.high for fit in fits]
    assert np.mean(held) > 0.7  # six sizes are few for a bootstrap: a little under 95%


def test_intervals_widen_with_noise():
    narrow, wide = (scaling.fit(frame(50e6, 2300, noise)) for noise in (0.01, 0.1))
    assert np.ptp(wide.slope_estimate[1:]) > 3 * np.ptp(narrow.slope_estimate[1:])
    assert np.ptp(wide.fixed_estimate[1:]) > 3 * np.ptp(narrow.fixed_estimate[1:])


def test_the_crossing_of_two_known_lines():
    # 300 MB + 2000 a pixel meets 100 MB + 4000 a pixel at 100,000 pixels
    crossing = scaling.crossing(scaling.fit(frame(300e6, 2000, 0.01)), scaling.fit(frame(100e6, 4000, 0.01)))
    assert crossing.low < 100_000 < crossing.high
    assert crossing.pixels == pytest.approx(100_000, rel=0.05)
    assert crossing.side[0] == pytest.approx(np.sqrt(crossing.pixels))


def test_lines_that_do_not_meet_do_not_cross():
    assert scaling.crossing(scaling.fit(frame(300e6, 4000)), scaling.fit(frame(100e6, 2000))) is None


def test_too_few_sizes_are_refused():
    few = frame(1e6, 10)
    with pytest.raises(NotMeasured, match="3 sizes"):
        scaling.fit(few[few.pixels < 512**2])


def test_fits_are_those_of_whole_images_at_enough_sizes():
    rows = frame(1e6, 10).assign(schedule="whole")
    few, tiled = rows[rows.pixels < 512**2].assign(variant="b"), rows.assign(variant="c", schedule="tiled")
    known = scaling.fits(pd.concat([rows.assign(variant="a"), few, tiled]))
    assert list(known) == ["a"] and known["a"].slope == pytest.approx(10)
    for name in ("b", "c"):
        with pytest.raises(NotMeasured, match=f"no line of {name}: it takes 4 sizes of whole images"):
            known[name]


def test_selecting_says_what_is_not_there():
    rows = pd.DataFrame({"variant": ["a", "b", "a"], "size": ["8x8", "8x8", "9x9"], "threads": [2, 2, 1]})
    assert list(scaling.select(rows).variant) == ["a", "b"]
    assert list(scaling.select(rows, "b", size="8x8").variant) == ["b"]
    assert list(scaling.select(rows, threads=1)["size"]) == ["9x9"]
    for wanted, options in ((["c"], {}), (["a"], {"size": "9x9"}), ([], {"threads": 3})):
        with pytest.raises(NotMeasured, match="no finished trials"):
            scaling.select(rows, *wanted, **options)


def test_a_ratio_of_medians_with_its_interval():
    rows = pd.DataFrame({"variant": ["a"] * 5 + ["b"] * 5, "x": [10, 10, 11, 10, 9, 5, 5, 5, 5, 5]})
    best, low, high = scaling.ratio(rows, "x", rows.variant == "a", rows.variant == "b")
    assert best == 2 and low <= 2 <= high and (low, high) != (2, 2)
    assert np.isnan(scaling.ratio(rows[4:6], "x", rows.variant[4:6] == "a", rows.variant[4:6] == "b")[1])
    with pytest.raises(NotMeasured):
        scaling.ratio(rows, "x", rows.variant == "a", rows.variant == "c")


def test_an_estimate_is_printed_with_its_interval():
    assert f"{scaling.Estimate(1234, 1200, 1300) / 1000:.2f}" == "1.23 (1.20 to 1.30)"
    assert f"{scaling.Estimate(1.234, 1.2, 1.3):.2f}" == "1.23 (1.20 to 1.30)"
    assert f"{scaling.Estimate(1.234, np.nan, np.nan):.1f}" == "1.2"
    assert f"{scaling.Estimate(-0.2, -1.2, 0.3):,.0f}" == "0 (-1 to 0)"
    assert f"{scaling.Estimate(1.234, 1.2, 1.24):.1f}" == "1.2", "an interval that rounds to its number says nothing"
    assert f"{scaling.Estimate(1.234, 1.2, 1.27):.1f}" == "1.2 (1.2 to 1.3)"
