"""Measures of quality against what they are by hand."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from udnet import Error, NotMeasured
from udnet.__main__ import main
from udnet.experiments import quality
from udnet.network import prepared
from udnet.pictures import metrics, scenes


def flat(*colour, side=32):
    return np.full((side, side, 3), colour, np.uint8)


def test_psnr_of_a_known_error():
    one = flat(100, 100, 100)
    assert metrics.psnr(one + 5, one) == pytest.approx(10 * np.log10(255**2 / 25))


def test_ssim_of_flat_pictures():
    one, other = flat(100, 100, 100), flat(120, 120, 120)
    c1 = (0.01 * 255) ** 2
    assert metrics.ssim(one, one) == 1
    assert metrics.ssim(one, other) == pytest.approx((2 * 100 * 120 + c1) / (100**2 + 120**2 + c1), rel=1e-6)


def test_gray_world():
    balanced = metrics.gray_world(flat(30, 120, 90))
    assert np.array_equal(balanced, flat(80, 80, 80))
    assert np.array_equal(metrics.gray_world(flat(0, 0, 0)), flat(0, 0, 0))


def test_gray_pictures_have_no_colour():
    assert metrics.colourfulness(flat(70, 70, 70).astype(float)) == 0
    assert metrics.uciqe(flat(128, 128, 128)) == pytest.approx(0, abs=1e-4)


def test_colourfulness_of_one_colour():
    red_green, yellow_blue = 200 - 100, (200 + 100) / 2 - 50
    found = metrics.colourfulness(flat(200, 100, 50).astype(float))
    assert found == pytest.approx(-0.0268 * np.hypot(red_green, yellow_blue))


def test_colourfulness_of_two_colours():
    """Half the picture is 40 redder than green, half 40 greener: the trimmed mean is 0, the variance 1600."""
    picture = flat(120, 80, 100).astype(float)
    picture[16:] = 80, 120, 100
    assert metrics.colourfulness(picture) == pytest.approx(0.1586 * 40)


def test_colourfulness_trims_a_tenth_at_either_end():
    picture = flat(100, 100, 100, side=20).astype(float)  # 400 pixels, of which 36 are off
    picture[0, :18], picture[1, :18] = (255, 0, 100), (0, 255, 100)
    variance = np.square(np.array([255, -255, 0])) @ [18, 18, 364] / 400
    yellow = np.square((255 + 0) / 2 - 100) * 36 / 400
    assert metrics.colourfulness(picture) == pytest.approx(0.1586 * np.sqrt(variance + yellow))


def test_contrast_of_stripes():
    """Every block holds 50 and 150: a contrast of a half."""
    picture = flat(50, 50, 50).astype(float)
    picture[::2] = 150
    assert metrics.contrast(picture) == pytest.approx(-0.5 * np.log(0.5))
    assert metrics.contrast(flat(9, 9, 9).astype(float)) == 0


def test_sharpness_of_a_ramp():
    """Sobel's edges are 16 everywhere but 8 at both ends, which are reflected; times the ramp, 10, 12, … 40."""
    ramp = np.zeros((16, 16, 3)) + (10 + 2 * np.arange(16))[:, None]
    left, right = (16 * 24) / (8 * 10), (16 * 38) / (8 * 40)
    assert metrics.sharpness(ramp) == pytest.approx(2 * (2 * np.log(left) + 2 * np.log(right)) / 4)
    assert metrics.sharpness(flat(100, 100, 100).astype(float)) == 0


def test_sharpness_leaves_out_a_block_with_a_flat_part():
    picture = flat(100, 100, 100).astype(float)
    picture[:, 16:] = 200
    assert metrics.sharpness(picture) == 0


def test_uciqe_of_two_halves():
    """Lab by hand: black and white have no chroma, so only the contrast of lightness counts."""
    picture = flat(0, 0, 0)
    picture[:16] = 255
    assert metrics.uciqe(picture) == pytest.approx(0.2745, abs=1e-4)


def test_uciqe_of_one_colour_is_its_saturation():
    from skimage.color import rgb2lab

    lightness, a, b = rgb2lab(flat(200, 60, 40))[0, 0]
    saturation = np.hypot(a, b) / np.sqrt(a * a + b * b + lightness * lightness)
    assert metrics.uciqe(flat(200, 60, 40)) == pytest.approx(0.2576 * saturation, rel=1e-6)


def test_uciqe_of_two_colours():
    from skimage.color import rgb2lab

    picture = flat(200, 60, 40)
    picture[16:] = 40, 80, 120
    lightness, a, b = np.moveaxis(rgb2lab(picture[[0, -1], 0]), 1, 0) / 100
    chroma = np.hypot(a, b)
    spread, contrast = abs(chroma[0] - chroma[1]) / 2, abs(lightness[0] - lightness[1])
    saturation = (chroma / np.hypot(chroma, lightness)).mean()
    assert metrics.uciqe(picture) == pytest.approx(0.4680 * spread + 0.2745 * contrast + 0.2576 * saturation)


def test_uiqm_is_the_weighted_sum():
    picture = np.random.default_rng(0).integers(0, 256, (40, 48, 3)).astype(np.uint8)
    parts = metrics.colourfulness, metrics.sharpness, metrics.contrast
    expected = sum(w * part(picture.astype(float)) for w, part in zip((0.0282, 0.2953, 3.5753), parts, strict=True))
    assert metrics.uiqm(picture) == pytest.approx(expected)


# A comparison


@pytest.fixture
def photographs(tmp_path):
    """A pair, and a photograph without a reference."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    view = scenes.draw(7, 64, 80)
    scenes.save(view, folder / "one.png")
    Image.fromarray(view.picture).save(folder / "alone.jpg")
    (folder / "README.md").write_text("not a photograph")
    return folder


@pytest.fixture
def one_scene(monkeypatch):
    monkeypatch.setattr(quality, "SCENES", range(2 * 10**6, 2 * 10**6 + 1))
    monkeypatch.setattr(scenes, "REEF_SIZE", (64, 72))


def test_every_method_is_scored_on_scenes_and_photographs(tmp_path, photographs, one_scene, capsys):
    assert main(["quality", str(tmp_path / "out"), "--photographs", str(photographs)]) == 0
    assert "gray world" in capsys.readouterr().out
    table = quality.run(tmp_path / "out").set_index(["picture", "method"])
    assert set(table.index) == {
        (name, method) for name in ("2000000", "one", "alone") for method in ("input", "gray world", "default weights")
    }
    view = scenes.draw(7, 64, 80)
    assert table.psnr["one", "input"] == pytest.approx(metrics.psnr(view.picture, view.reference), rel=1e-4)
    assert np.isnan(table.psnr["alone", "input"]) and table.uiqm["alone", "input"] > 0
    assert table.weights["one", "default weights"].startswith("weights: the embedded default")
    assert main(["quality", str(tmp_path / "other"), "--photographs", str(tmp_path / "none")]) == 2
    assert "no folder" in capsys.readouterr().err and not (tmp_path / "other").exists()


def test_a_table_is_kept_where_it_has_all_that_is_asked_for(tmp_path, photographs, one_scene, monkeypatch):
    out = tmp_path / "out"
    scored = quality.run(out)
    assert set(scored.set) == {"scenes"}
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "score", None)
        pd.testing.assert_frame_equal(quality.run(out), scored)
    assert set(quality.run(out, photographs).set) == {"scenes", "photographs"}
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "score", None)
        assert set(quality.run(out).set) == {"scenes", "photographs"}, "more than is asked for is kept"
        patch.setattr(prepared, "DEFAULT_NAME", "other weights")
        with pytest.raises(TypeError):
            quality.run(out)
    assert "published weights" in set(quality.run(out, published=prepared.DEFAULT).method)
    (out / quality.FILE).write_text("no,table\n1,2\n")
    with pytest.raises(Error, match=r"quality\.csv: damaged .*: put it back"):
        quality.run(out)


def test_weights_of_one_s_own_are_scored_beside_the_default(tmp_path, one_scene, capsys):
    assert main(["quality", str(tmp_path), "--weights", str(prepared.DEFAULT)]) == 0
    assert "own weights" in capsys.readouterr().out
    table = quality.run(tmp_path, own=prepared.DEFAULT).set_index("method")
    assert table.psnr["own weights"] == table.psnr["default weights"]


def test_photographs_that_cannot_be_scored_are_one_line_and_leave_nothing(tmp_path, photographs, one_scene, capsys):
    def said(*more):
        assert main(["quality", str(tmp_path / "out"), "--photographs", str(photographs), *more]) == 2
        assert not (tmp_path / "out").exists()
        told = capsys.readouterr().err
        assert told.count("\n") == 1
        return told

    assert "there is no such file" in said("--published", str(tmp_path / "none.onnx"))
    (photographs / "alone.png").write_bytes((photographs / "alone.jpg").read_bytes())
    assert "2 photographs with the name alone: rename all but one" in said()
    Image.new("RGB", (64, 10)).save(photographs / "alone.png")
    (photographs / "alone.jpg").unlink()
    assert "alone.png: a side of less than 11 pixels" in said()
    Image.new("RGB", (64, 80)).save(photographs / "alone.png")
    Image.new("RGB", (80, 64)).save(photographs / "alone_reference.png")
    assert "differ in size (80x64 and 64x80): make them the same" in said()
    (photographs / "alone_reference.png").write_bytes(b"not a picture")
    assert "alone_reference.png: empty, cut short, or not" in said()
    for path in photographs.iterdir():
        path.rename(path.with_name("." + path.name))
    assert "no photographs in it" in said()


def test_the_table_of_means(tmp_path):
    psnr = {"input": (17, 18), "gray world": (18, 17), "default weights": (19, 21), quality.PUBLISHED: (18, 20)}
    captions = dict.fromkeys(psnr, "") | {"default weights": "weights: some"}
    rows = [
        ("photographs", name, method, captions[method], psnr[method][place], 0.7, 2.0, 0.5)
        for method in psnr
        for place, name in enumerate("ab")
    ]
    rows.append(("photographs", "alone", "input", "", np.nan, np.nan, 5.0, 0.5))
    scores = pd.DataFrame(rows, columns=quality.COLUMNS)
    with pytest.raises(NotMeasured, match="the quality of the pictures was not scored"):
        quality.read(tmp_path)
    scores.to_csv(tmp_path / quality.FILE, index=False)
    table = quality.table(quality.read(tmp_path))
    assert list(table.index) == [("photographs", method) for method in psnr]
    assert table.loc[("photographs", "input"), ["pictures", "with a reference", "weights"]].tolist() == [3, 2, ""]
    assert table.loc[("photographs", "default weights"), ["PSNR, dB", "weights"]].tolist() == [
        "20.00 (19.00 to 21.00)",
        "some",
    ]
    assert table.loc[("photographs", "input"), "UIQM"] == "3.00 (2.00 to 5.00)"
