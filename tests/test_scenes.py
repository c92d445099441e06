"""Scenes: the same at any size and in any stripe; water: the formation model against what it is by hand."""

import subprocess
import sys

import numpy as np
import pytest
from conftest import REPO
from PIL import Image

from udnet.__main__ import main
from udnet.pictures import canvas, scenes, water
from udnet.system.memory import MIB

SEEDS = range(8)


def smaller(pixels, factor):
    """Means of factor x factor pixels."""
    rows, columns = (side // factor for side in pixels.shape[:2])
    return pixels.reshape(rows, factor, columns, factor, -1).mean(axis=(1, 3))


# Scenes


def test_a_seed_gives_a_scene_and_another_seed_another():
    one, again, other = scenes.draw(1, 64, 96), scenes.draw(1, 64, 96), scenes.draw(2, 64, 96)
    for name in ("picture", "reference", "range"):
        assert np.array_equal(getattr(one, name), getattr(again, name))
        assert not np.array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (135, 240), (257, 99)])
def test_a_view_is_of_the_size_asked_for(height, width):
    view = scenes.draw(3, height, width)
    assert view.picture.shape == view.reference.shape == (height, width, 3)
    assert view.picture.dtype == view.reference.dtype == np.uint8
    assert view.range.shape == (height, width)
    assert view.range.min() > 0 and view.range.max() <= canvas.FAR


@pytest.mark.parametrize("seed", SEEDS)
def test_a_stripe_is_that_of_the_whole(seed):
    height, width = 200, 120
    whole = scenes.draw(seed, height, width)
    for rows in ((0, 10), (61, 140), (190, 200)):
        stripe = scenes.draw(seed, height, width, rows)
        for name in ("picture", "reference", "range"):
            assert np.array_equal(getattr(stripe, name), getattr(whole, name)[slice(*rows)]), name


@pytest.mark.parametrize("seed", SEEDS)
def test_a_scene_is_the_same_at_another_size(seed):
    small, large = scenes.draw(seed, 96, 128).reference, scenes.draw(seed, 384, 512).reference
    assert np.corrcoef(small.ravel(), smaller(large, 4).ravel())[0, 1] > 0.85, "but for the finest textures"


def test_a_wider_picture_shows_more_to_the_sides():
    narrow, wide = scenes.draw(5, 120, 120).range, scenes.draw(5, 120, 240).range
    assert np.allclose(narrow, wide[:, 60:180])


def test_the_exposure_of_a_very_wide_picture_is_that_of_its_middle():
    wide, wider = (scenes.draw(5, 64, 64 * times).reference for times in (scenes.WIDEST, scenes.WIDEST + 2))
    assert np.abs(wider[:, 64:-64].astype(int) - wide).max() <= 1, "but for rounding"


@pytest.mark.parametrize("seed", [scenes.REEFS[0], scenes.REEFS[3]])
def test_the_range_is_the_distance_that_the_water_acts_over(seed):
    here = water.Water(np.random.default_rng([seed, 1]))
    clear = scenes.Scene(seed).rows(64, 96, 0, 64)[1]
    assert scenes.draw(seed, 64, 96).range == pytest.approx(here.near * clear)


def test_the_range_of_a_floor_follows_from_the_camera_s_height():
    scene = next(scene for scene in map(scenes.Scene, range(100)) if scene.horizon < 0)
    scene.things = []
    metres = scene.rows(96, 96, 0, 96)[1]
    v = (np.arange(96) + 0.5) / 96
    flat = scene.altitude / (v - scene.horizon)
    assert np.median(metres / flat[:, None]) == pytest.approx(1, abs=0.1), "but for its hills"


def test_a_stripe_of_8k_takes_little_memory():
    code = (
        "from udnet.pictures import scenes\n"
        "from udnet.system import memory\n"
        "before = memory.lifetime_peak()\n"
        "scenes.draw(0, 4320, 7680, (2000, 2064))\n"
        "print(memory.lifetime_peak() - before)"
    )
    grown = int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout)
    assert grown < 500 * MIB, "a whole picture in floats, of three channels alone, would take 380"


def test_what_is_painted_later_is_behind():
    """By hand: the near thing covers a quarter of the first column, all of the second, nothing of the third."""
    places = np.arange(3, dtype=np.float32)
    paper = canvas.Canvas(places, places[:1], 1.0)
    everything, _, _ = paper.box(-1, -1, 3, 3)
    paper.paint(everything, np.array([[0.25, 1, 0]], np.float32), np.float32(8), 2.0)
    paper.shade(everything, np.float32(0.5))
    assert paper.box(0.5, -1, 1.5, 3) is None, "hidden"
    where, u, _ = paper.box(-1, -1, 1.5, 3)
    assert where == (slice(0, 1), slice(0, 1)) and u.tolist() == [[0]], "as far as it is seen"
    paper.paint(everything, np.float32(1), np.float32(4), 5.0)
    assert paper.light[0, :, 0].tolist() == [8 / 4 + 4 * 3 / 4 / 2, 8, 4 / 2]
    assert paper.range.tolist() == [[5, 2, 5]], "of what covers more than half"


def test_noise_stays_within_its_range_and_fades_where_pixels_cannot_show_it():
    noise = canvas.Noise(np.random.default_rng(0))
    x, y = np.meshgrid(np.linspace(-50, 50, 300, dtype=np.float32), np.linspace(-50, 50, 300, dtype=np.float32))
    fine = noise.fractal(x, y, 0.01)
    assert np.abs(fine).max() <= 1 and fine.std() > 0.1
    assert not noise.fractal(x, y, 0.5).any(), "two pixels a cycle and less"
    assert noise.at(x, y) == pytest.approx(noise.at(x + canvas.SIDE, y - canvas.SIDE), abs=1e-3), "a table, tiled"


def test_the_reefs_are_what_their_seeds_draw():
    folder = REPO / "data" / "images"
    waters = []
    for place, seed in enumerate(scenes.REEFS, 1):
        view = scenes.draw(seed, *scenes.REEF_SIZE)
        for name, expected in ((f"reef_{place}.png", view.picture), (f"reef_{place}_reference.png", view.reference)):
            off = np.abs(np.asarray(Image.open(folder / name)).astype(int) - expected)
            assert (off > 1).mean() < 0.001, "but for the rounding of another processor"
        waters.append(water.Water(np.random.default_rng([seed, 1])).name)
    assert len(set(waters)) == len(waters), "each in water of its own type"


def test_a_scene_to_a_file(tmp_path, capsys):
    out = tmp_path / "reef.png"
    assert main(["scene", "3", str(out), "--size", "64x80"]) == 0
    view = scenes.draw(3, 64, 80)
    assert np.array_equal(np.asarray(Image.open(out)), view.picture)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "reef_reference.png")), view.reference)
    for wrong in (["3", str(tmp_path / "reef.tif")], ["-3", str(out)], ["3", str(tmp_path / "none" / "reef.png")]):
        assert main(["scene", *wrong]) == 2
        assert capsys.readouterr().err.count("\n") == 1


# Water


def made(name="II", seed=0):
    """Water without a strobe."""
    here = water.Water(np.random.default_rng(seed), name)
    here.strobe = 0.0
    return here


@pytest.mark.parametrize("name", water.JERLOV)
def test_light_that_comes_from_near_and_from_far(name):
    here, light = made(name), np.full((3, 4, 3), 0.5, np.float32)
    v = np.full(3, 0.5)  # where the veil is neither brighter nor darker
    near = here.picture(light, np.zeros((3, 4), np.float32), v, 1)
    assert near == pytest.approx(np.broadcast_to(0.5 * here.daylight * here.balance, near.shape), rel=1e-5)
    far = here.picture(light, np.full((3, 4), 1e6, np.float32), v, 1)
    assert far == pytest.approx(np.broadcast_to(here.veil * here.balance, far.shape), rel=1e-5)
    between = here.picture(light, np.full((3, 4), 2, np.float32), v, 1)
    direct, back = np.exp(-2 * here.direct), np.exp(-2 * here.back)
    by_hand = (0.5 * here.daylight * direct + here.veil * (1 - back)) * here.balance
    assert between == pytest.approx(np.broadcast_to(by_hand, between.shape), rel=1e-5)


def test_a_strobe_lights_what_is_near_in_white():
    here, light, v = made("I"), np.full((1, 2, 3), 0.5, np.float32), np.full(1, 0.5)
    metres = np.array([[1, 3]], np.float32)
    without = here.picture(light, metres, v, 1)
    here.strobe, here.lit = 2.0, 3.0
    gained = (here.picture(light, metres, v, 1) - without)[0] / here.balance
    z = metres[0, :, None]
    assert gained == pytest.approx(0.5 * np.exp(-2 * z * here.direct) * 2 / (1 + (z / 3) ** 2), rel=1e-4)
    assert gained[0, 0] / gained[0, 2] > gained[1, 0] / gained[1, 2], "red fades on the way there and back"


def test_water_types_are_in_order():
    """From oceanic to coastal, each takes more of every colour; red fades first in the ocean, blue at the coast."""
    table = np.array(list(water.JERLOV.values()))
    assert list(water.JERLOV) == ["I", "IA", "IB", "II", "III", "1C", "3C", "5C", "7C", "9C"]
    assert (np.diff(table, axis=0) >= 0).all()
    assert table[:6].argmax(axis=1).tolist() == [0] * 6 and table[8:].argmax(axis=1).tolist() == [2] * 2


def test_scattered_light_is_only_moved():
    here = made()
    here.spread, here.scattered, here.slope = 0.05, 1e9, 0.0
    light = np.zeros((80, 80, 3), np.float32)
    light[40, 40] = 1
    flat = np.full((80, 80), 3, np.float32)
    v = np.full(80, 0.5)
    spread = here.picture(light, flat, v, 80) - here.picture(0 * light, flat, v, 80)
    here.scattered = 0.0
    sharp = here.picture(light, flat, v, 80) - here.picture(0 * light, flat, v, 80)
    assert spread.sum(axis=(0, 1)) == pytest.approx(sharp.sum(axis=(0, 1)), rel=1e-3)
    assert spread.max() < 0.1 * sharp.max()


def test_a_reference_is_seen_through_half_the_water_in_white_light():
    here, light = made("I"), np.full((2, 2, 3), 0.4, np.float32)
    v = np.full(2, 0.5)
    half = here.reference(light, np.full((2, 2), 6, np.float32), v)
    expected = 0.4 * np.exp(-3 * here.direct) + here.clear_veil * (1 - np.exp(-3 * here.direct.min()))
    assert half == pytest.approx(np.broadcast_to(expected, half.shape), rel=1e-5)
    assert here.reference(light, np.zeros((2, 2), np.float32), v) == pytest.approx(light)
    far = here.reference(light, np.full((2, 2), 1e6, np.float32), v)
    assert far == pytest.approx(np.broadcast_to(here.clear_veil, far.shape))
    assert far[0, 0, 2] > far[0, 0, 0], "blue"


def test_a_light_picture_is_exposed_to_gray_and_a_dark_one_to_white():
    linear = np.random.default_rng(0).uniform(0, 1, (50, 50, 1)).astype(np.float32).repeat(3, 2)
    for power in (0.2, 5):
        black, white = water.levels(linear**power)
        assert black == pytest.approx(0.8 * 0.005**power, rel=0.1)
        exposed = (linear**power - black) / (white - black)
        if power < 1:
            assert exposed.mean() == pytest.approx(0.18) and np.percentile(exposed, 99) < 0.5
        else:
            assert exposed.mean() < 0.18 and np.percentile(exposed, 99) == pytest.approx(1)


def test_light_to_pixels_and_back():
    linear = np.linspace(0, 1, 50, dtype=np.float32)[:, None, None].repeat(3, 2)
    assert canvas.linear(water.develop(linear, 0, 1)) == pytest.approx(linear, abs=1e-5)
    assert water.develop(linear, 0.2, 0.4).min() == 0 and water.develop(linear, 0.2, 0.4).max() == pytest.approx(1)
