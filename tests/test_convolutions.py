"""Other kernels for the schedule's convolution: that each computes it, and the table of what each took."""

import numpy as np
import pandas as pd
import pytest

from udnet import NotMeasured
from udnet.experiments import convolutions
from udnet.experiments.other_kernels import KERNELS, OWN, Ready, Task
from udnet.network import winograd
from udnet.tiled import kernels


def ready(name, task):
    """A kernel of this name, if it is to be had here."""
    try:
        return KERNELS[name][1](task)
    except (ImportError, NotMeasured) as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("points", [winograd.TWO, winograd.FOUR, (0, 1, -1, 2, -2, 1 / 2, -1 / 2)])
def test_the_matrices_give_a_convolution(points):
    down, across, rows = winograd.matrices(points)
    d, g = np.random.default_rng(0).random(len(points) + 1), np.array([3, 1, 2])
    np.testing.assert_allclose(down @ ((across @ g) * (rows @ d)), np.correlate(d, g), rtol=1e-9)


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("channels", [64, 128])
def test_a_kernel_gives_the_convolution(name, channels):
    task = Task(channels, 8, 6)
    kernel = ready(name, task)
    for _ in range(2):  # again in the same arrays
        output, expected = kernel.output(kernel.run()), task.expected(kernel.block)
        assert output.shape == expected.shape == (64, 8, 6)
        assert np.abs(output - expected).max() <= 1e-5 and np.abs(expected).max() > 0.1
        task.out[:] = np.nan


def test_in_its_own_layout_onnx_runtime_gives_the_same_bits():
    outputs = []
    for name in (OWN, "ONNX Runtime, its own layout"):
        kernel = ready(name, Task(64, 8, 6))
        outputs.append(kernel.output(kernel.run()))
    np.testing.assert_array_equal(*outputs)


@pytest.mark.parametrize("points", [winograd.TWO, winograd.FOUR])
@pytest.mark.parametrize("columns", [3, 5])
def test_one_graph_of_winograd_takes_any_columns(points, columns):
    task = Task(64, len(points) - 1, columns)
    weights = winograd.products(points, task.weight, task.bias)
    run = kernels.OnnxKernels().by_graph(winograd.graph(points, 64), weights)
    block, out = (np.ascontiguousarray(one.transpose(1, 0, 2)) for one in (task.block, task.out))
    run(out, block)
    np.testing.assert_allclose(out.transpose(1, 0, 2), task.expected(task.block), rtol=0, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 3, 4, 5, 9])
@pytest.mark.parametrize("channels", [3, 64])
def test_the_kernels_by_winograd_take_any_rows(rows, channels):
    task, new = Task(channels, rows, 6), kernels.WinogradKernels()
    kernel = new.make("convolution", task.weight, task.bias)
    out, block = (new.arranged(np.full(one.size, np.nan, np.float32), *one.shape) for one in (task.out, task.block))
    block[:] = task.block
    np.testing.assert_allclose(kernel.run(out, block), task.expected(block), rtol=0, atol=1e-6)


def test_every_kernel_is_measured_into_a_table(tmp_path):
    with pytest.raises(NotMeasured, match="no other kernels were tried"):
        convolutions.read(tmp_path)
    table = convolutions.run(tmp_path, 1, [(64, 4, 6)], calls=2, progress=False)
    assert list(table.kernel) == [convolutions.YARDSTICK, *KERNELS]
    measured = table[table.skipped.isna()].set_index("kernel")
    assert {convolutions.YARDSTICK, OWN, "F(4, 3) in one graph"} <= set(measured.index)
    assert (measured.seconds > 0).all() and measured.share[convolutions.YARDSTICK] == 1
    assert measured.operations[OWN] == 2 * 9 * 64 * 64 * 4 * 6
    assert measured.operations["ONNX Runtime, 2 in one graph"] == 2 * 9 * 64 * 64 * (4 * 6 + 6 * 8)
    assert measured.largest_error.max() < 1e-5
    (tmp_path / "convolutions.csv").chmod(0o400)
    pd.testing.assert_frame_equal(convolutions.run(tmp_path, 1, [(64, 4, 6)], progress=False), table)


def test_a_kernel_that_is_not_there_has_a_row_that_says_why(monkeypatch):
    def absent(task):
        raise ModuleNotFoundError("No module named 'other'")

    def present(task):
        return Ready(lambda: task.expected(task.block), task.block)

    monkeypatch.setattr(convolutions, "KERNELS", {OWN: ("numpy", present), "other": ("other", absent)})
    monkeypatch.setattr(convolutions, "MATRIX_SIDE", 8)
    _, own, other = convolutions.measure(64, 2, 3, 0, calls=1)
    assert own["largest_error"] == 0
    assert other["skipped"] == "No module named 'other'" and "seconds" not in other


def test_a_kernel_is_compared_with_the_schedule_s_own_in_the_same_process(tmp_path):
    rows = [
        (64, 8, 480, repeat, kernel, "a 1", *[seconds] * 3, operations, error, error, reason)
        for repeat, slower in enumerate((1, 3))  # the second time all take three times as long
        for kernel, seconds, operations, error, reason in (
            (convolutions.YARDSTICK, 1 * slower, 100, np.nan, ""),
            (OWN, 2 * slower, 100, 1e-7, ""),
            ("fast", 2 * slower, 300, 2e-7, ""),
            ("none", np.nan, np.nan, np.nan, "not installed"),
        )
    ]
    pd.DataFrame(rows, columns=convolutions.COLUMNS).to_csv(tmp_path / convolutions.FILE, index=False)
    found = convolutions.compared(convolutions.read(tmp_path)).set_index("kernel")
    assert list(found.index) == [OWN, "fast"]
    fast = found.loc["fast"]
    assert fast.times == pytest.approx((3, 3, 3)) and fast.share == pytest.approx((1.5, 1.5, 1.5))
    assert fast.error == pytest.approx(2) and fast.seconds == 4
