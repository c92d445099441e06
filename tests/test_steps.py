"""Where the time of the tiled schedule goes: every step is seen, and none twice."""

import numpy as np
import pandas as pd
import pytest

import udnet
from udnet import NotMeasured
from udnet.experiments import convolutions, steps
from udnet.pictures import reference
from udnet.tiled import plans


def test_a_step_s_seconds_are_its_own(monkeypatch):
    now = iter([0, 1, 3, 10])  # the outer begins, the inner begins and ends, the outer ends
    monkeypatch.setattr(steps.time, "perf_counter", lambda: next(now))
    clock = steps.Clock()
    with clock.step("outer"), clock.step("inner", operations=5), clock.step("inner"):
        pass
    assert clock.steps() == {"outer": steps.Step(1, 8, 0), "inner": steps.Step(1, 2, 5)}


@pytest.mark.parametrize("variant", ["onnx-tiled", "onnx-tiled@2GiB"])
def test_watching_sees_every_step_and_changes_nothing(variant):
    pixels, clock = reference.picture(512, 520), steps.Clock()
    expected = udnet.load(variant)(pixels)
    with clock.watching():
        enhancer = udnet.load(variant)
        np.testing.assert_array_equal(enhancer(pixels), expected)
    seen = clock.steps()
    assert set(seen) == {steps.CALLS, steps.REST, *steps.STEPS.values()} - {steps.STEPS["ScratchMap"]}
    plan = enhancer.network.plan(512, 520)
    called = seen[steps.CALLS].calls
    assert seen[steps.CALLS].operations == pytest.approx(2 * (plan.multiply_adds - plans.CALL * called), rel=0.05)
    seen.clear()
    udnet.load(variant)(pixels)
    assert clock.steps()[steps.CALLS].calls == called, "not watched any more"


VARIANTS = "onnx-tiled", "onnx-scratch"


def test_pictures_are_measured_into_a_table(tmp_path):
    with pytest.raises(NotMeasured, match="step by step"):
        steps.read(tmp_path)
    table = steps.run(tmp_path, 1, VARIANTS, (64, 128), progress=False)
    assert (table.groupby("variant").share.sum() - 1).abs().max() < 1e-9
    calls = table[table.step == steps.CALLS]
    assert (calls.rate > 0).all() and (calls.share > 0).all() and convolutions.YARDSTICK not in set(table.step)
    (tmp_path / steps.FILE).chmod(0o400)
    again = steps.run(tmp_path, 1, VARIANTS, (64, 128), progress=False)
    pd.testing.assert_frame_equal(again, table)
