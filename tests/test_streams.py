"""Each step of a stream against the same on the whole map, however the rows are cut."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from udnet.tiled import kernels, streams
from udnet.tiled.streams import Map, Moments, Pool, Tap, Upsample, WindowSums, Workspace, inside, stream

CUTS = [(1,), (2,), (1, 1, 3), (5, 1), (7,), (100,)]


def random(channels, height, width, seed=0):
    return np.random.default_rng(seed).normal(size=(channels, height, width)).astype(np.float32)


def cut(values, sizes, window=None):
    """A map as a stream, cut into these numbers of rows over and over."""
    left, right = window or (0, values.shape[2])
    place = turn = 0
    while place < values.shape[1]:
        size = sizes[turn % len(sizes)]
        yield values[:, place : place + size, left:right]
        place, turn = place + size, turn + 1


def whole(rows):
    return np.concatenate([one.copy() for one in rows], axis=1)


@pytest.fixture(params=[kernels.OnnxKernels, kernels.TorchKernels, kernels.WinogradKernels])
def workspace(request):
    """Arrays in each layout that the kernels like best."""
    return Workspace(request.param.arranged)


@pytest.mark.parametrize("sizes", CUTS)
@pytest.mark.parametrize(("height", "window"), [(9, (0, 12)), (9, (3, 8)), (2, (0, 5)), (3, (7, 12))])
def test_a_convolution(workspace, sizes, height, window):
    made = kernels.TorchKernels()
    weight, bias = random(4, 3, 3).reshape(4, 3, 3, 1) * np.ones(3, np.float32), random(1, 1, 4)[0, 0]
    x, skip = random(3, height, 12), random(4, height, 12, seed=1)
    kernel = made.make("residual", weight, bias)
    expected = F.conv2d(F.pad(torch.from_numpy(x)[None], [1] * 4, "reflect"), *map(torch.from_numpy, (weight, bias)))
    tap = Tap(cut(skip, (100,)), workspace, "skip")
    step = streams.Convolution(
        kernel, height, 12, window, lambda n: inside(tap.take(n), window, (0, 12)), workspace, "convolution"
    )
    got = whole(stream(step, cut(x, sizes, streams.widened(window, 1, 12))))
    np.testing.assert_allclose(got, inside(expected[0].numpy() + skip, window, (0, 12)), atol=1e-5)


@pytest.mark.parametrize("sizes", CUTS)
def test_pooling(workspace, sizes):
    x = random(3, 10, 12)
    expected = F.max_pool2d(torch.from_numpy(x), 2).numpy()
    np.testing.assert_array_equal(whole(stream(Pool(workspace, "pool"), cut(x, sizes))), expected)


@pytest.mark.parametrize("sizes", CUTS)
@pytest.mark.parametrize("own", [(0, 24), (5, 11), (6, 24), (0, 1), (23, 24)])
def test_upsampling_with_aligned_corners(workspace, sizes, own):
    x = random(3, 9, 12)
    expected = F.interpolate(torch.from_numpy(x)[None], scale_factor=2, mode="bilinear", align_corners=True)[0].numpy()
    window = streams.beneath(own, 12)
    step = Upsample(9, 12, window, workspace, "upsample")
    got = inside(whole(stream(step, cut(x, sizes, window))), own, step.output)
    np.testing.assert_allclose(got, inside(expected, own, (0, 24)), atol=1e-6)


@pytest.mark.parametrize("sizes", CUTS)
def test_moments_of_values_far_from_zero(workspace, sizes):
    x = random(3, 11, 12) * 1e-3 + 7
    moments = Moments(3, 11, 12)
    for own in ((0, 5), (5, 12)):
        streams.exhaust(stream(moments.of(own, (0, 12), workspace), cut(x, sizes)))
    exact = x.astype(float)
    np.testing.assert_allclose(moments.variance(), exact.var(axis=(1, 2)), rtol=1e-3)
    mean, spread = moments.latent()
    np.testing.assert_allclose(mean, exact.mean(axis=(1, 2)), rtol=1e-7)
    np.testing.assert_allclose(spread, exact.std(axis=1, ddof=1).std(axis=1, ddof=1), rtol=1e-2)


@pytest.mark.parametrize("sizes", CUTS)
@pytest.mark.parametrize(("height", "width"), [(2, 2), (2, 7), (11, 12)])
def test_the_mean_of_a_convolution_from_sums_of_its_input(sizes, height, width):
    x = random(3, height, width)
    weight, bias = random(4, 3, 9).reshape(4, 3, 3, 3), random(1, 1, 4)[0, 0]
    sums, middle = WindowSums(3, height, width), width // 2
    for own in ((middle, width), (0, middle)):  # in any order
        streams.exhaust(stream(sums.of(own, (0, width)), cut(x, sizes)))
    y = F.conv2d(F.pad(torch.from_numpy(x)[None], [1] * 4, "reflect"), *map(torch.from_numpy, (weight, bias)))
    np.testing.assert_allclose(sums.mean(weight, bias), y.double().mean((0, 2, 3)).numpy(), atol=1e-5)


@pytest.mark.parametrize("lag", [0, 2, 5, 12, 30])
@pytest.mark.parametrize("most", [1, 2, 3, 8])
def test_a_tap_gives_each_row_twice(workspace, lag, most):
    x = random(2, 60, 3)
    for _ in range(2):  # in the arrays that the last one left
        tap = Tap(cut(x, (3, 4)), workspace, "tap")
        ahead, behind, waiting = [], [], 0
        for rows in tap.ahead():
            ahead.append(rows.copy())
            waiting += rows.shape[1]
            while waiting >= lag + most:
                behind.append(tap.take(most).copy())
                waiting -= most
        if waiting:
            behind.append(tap.take(waiting).copy())
        np.testing.assert_array_equal(whole(ahead), x)
        np.testing.assert_array_equal(whole(behind), x)


def test_a_tap_that_lags_holds_what_waits_and_one_piece(workspace):
    tap = Tap(cut(random(2, 60, 3), (4,)), workspace, "tap")
    for place, _ in enumerate(tap.ahead()):
        if place >= 5:
            tap.take(4)
    assert tap.buffer.shape[1] == 24


@pytest.mark.parametrize("sizes", CUTS)
@pytest.mark.parametrize("least", [1, 4])
def test_gathering_gives_no_fewer_rows_but_for_the_last(workspace, sizes, least):
    x = random(2, 11, 3)
    pieces = [one.copy() for one in streams.gather(cut(x, sizes), least, workspace, "few")]
    np.testing.assert_array_equal(np.concatenate(pieces, axis=1), x)
    assert all(one.shape[1] >= least for one in pieces[:-1])


def test_a_map_is_overwritten_behind_its_reader():
    x = random(2, 10, 8)
    held = Map(x.copy(), (4, 12))
    doubled = (2 * rows for rows in held.read((5, 11), 3))
    streams.exhaust(stream(held.write((6, 10), (5, 11)), doubled))
    expected = x.copy()
    expected[:, :, 2:6] *= 2
    np.testing.assert_array_equal(held.values, expected)


def test_splitting_keeps_the_values_though_their_array_is_used_again():
    rows, seen = np.empty((1, 6, 2), np.float32), []

    def source():
        for _ in range(2):
            rows[:] = 1
            yield rows

    for piece in streams.split(source(), 4):
        seen.append((piece.shape[1], piece.max()))
        rows[:] = 0  # by a later step
    assert seen == [(4, 1), (2, 1), (4, 1), (2, 1)]
