"""Training: seeded, resumable after a kill, honest about what its loss leaves out."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
import torch

from udnet import Error
from udnet.__main__ import main
from udnet.experiments import quality
from udnet.network import checkpoint, model, prepared, train
from udnet.pictures import scenes
from udnet.system import files

TINY = {"steps": 6, "batch": 1, "scenes": 2}
VALIDATION = train.VALIDATION


@pytest.fixture(scope="module", autouse=True)
def small():
    """Pictures, tries and notes small enough for a test; the same in a child process by `CODE`."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SMALL.items():
            patch.setattr(train, name, value)
        yield


SMALL = {"DRAWN": 32, "SIDES": (16, 24), "VALIDATION": range(10**6, 10**6 + 1), "LOG_STEPS": 2, "KEEP_SECONDS": 0}
CODE = (
    "import sys, pathlib, torch; from udnet.network import train\n"
    "torch.set_num_threads(int(sys.argv[3]))\n"
    f"for name, value in {SMALL!r}.items(): setattr(train, name, value)\n"
    "train.run(pathlib.Path(sys.argv[1]), train.Settings(**eval(sys.argv[2])), progress=False)"
)


def weights(path):
    return checkpoint.read(path)


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("objective", train.OBJECTIVES)
def test_a_run_gives_inference_weights_and_a_log(tmp_path, objective):
    path = train.run(tmp_path / "run", train.Settings(objective, **TINY), progress=False)
    network = model.InferenceUDnet()
    checkpoint.load_into(network, weights(path), path)
    log = pd.read_csv(tmp_path / "run" / "log.csv")
    assert log.step.tolist() == [2, 4, 6]
    terms = {"mse", "structure"} if objective == "direct" else {"mse", "kl_u", "kl_s"}
    assert set(log.columns) == {"step", "seconds", "loss", "psnr"} | terms
    assert np.isfinite(log.psnr).all()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run that has ended."""
    return train.run(tmp_path_factory.mktemp("run"), train.Settings(**TINY), progress=False).parent


@pytest.fixture
def run(finished, tmp_path):
    """A copy of that folder."""
    return shutil.copytree(finished, tmp_path / "run")


def started(out, about):
    """A run in a process of its own."""
    told = [sys.executable, "-c", CODE, out, repr(about), torch.get_num_threads()]
    return subprocess.Popen([str(one) for one in told], stderr=subprocess.PIPE)


def alike(whole, again):
    """Two runs have the same weights and the same log."""
    assert same(weights(again), weights(whole))
    logs = [pd.read_csv(path.parent / "log.csv").drop(columns="seconds") for path in (whole, again)]
    pd.testing.assert_frame_equal(*logs)


@pytest.mark.parametrize("objective", ["direct", "clean"])
def test_a_run_that_is_stopped_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch, objective):
    def stop(state, *pair):
        if state.step == 3:
            raise KeyboardInterrupt
        advance(state, *pair)

    settings, out, advance = train.Settings(objective, **TINY), tmp_path / "stopped", train._State.advance
    whole = train.run(tmp_path / "whole", settings, progress=False)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(train._State, "advance", stop)
        train.run(out, settings, progress=False)
    assert not (out / "udnet.pth").exists()
    alike(whole, train.run(out, settings, progress=False))


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on_as_if_it_had_not_been(tmp_path):
    about, out = TINY | {"steps": 40}, tmp_path / "killed"
    whole = train.run(tmp_path / "whole", train.Settings(**about), progress=False)
    with started(out, about) as child:
        while not (out / "log.csv").exists() or "psnr" not in (out / "log.csv").read_text():
            assert child.poll() is None, child.stderr.read()
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    assert not (out / "udnet.pth").exists()
    alike(whole, train.run(out, train.Settings(**about), progress=False))


def test_a_run_that_is_killed_while_it_draws_leaves_its_folder_free(tmp_path):
    with started(tmp_path, TINY | {"steps": 20_000, "scenes": 20_000}) as child:
        while not (tmp_path / "settings.json").exists():
            assert child.poll() is None, child.stderr.read()
            time.sleep(0.01)
        time.sleep(0.5)
        child.send_signal(signal.SIGKILL)
    with files.alone(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["settings.json"]


@pytest.mark.parametrize("name", ["run.pth", "udnet.pth"])
def test_a_run_over_its_own_vgg_is_refused(tmp_path, name):
    (tmp_path / name).write_text("of long work")
    with pytest.raises(Error, match="made from"):
        train.run(tmp_path, train.Settings(vgg=str(tmp_path / name), **TINY), progress=False)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of long work"]


def test_a_log_that_a_kill_has_kept_from_being_written_is_written(run):
    log = (run / "log.csv").read_text()
    (run / "log.csv").unlink()
    train.run(run, train.Settings(**TINY), progress=False)
    assert (run / "log.csv").read_text() == log


@pytest.mark.parametrize("objective", train.OBJECTIVES)
def test_with_vgg_s_checkpoint_its_term_is_in_the_loss(tmp_path, monkeypatch, objective):
    monkeypatch.setattr(train, "SIDES", (32,))
    monkeypatch.setattr(train, "_features", lambda path: model.vgg_features())
    train.run(tmp_path, train.Settings(objective, vgg="vgg16.pth", **TINY | {"steps": 2}), progress=False)
    log = pd.read_csv(tmp_path / "log.csv")
    assert (log.perceptual > 0).all()
    terms = log.drop(columns=["step", "seconds", "loss", "psnr"])
    assert log.loss.to_numpy() == pytest.approx(terms.sum(axis=1).to_numpy(), rel=1e-4)


def test_a_request_that_cannot_be_met_is_one_line_and_leaves_nothing(tmp_path, capsys):
    (tmp_path / "other.pth").write_bytes(prepared.DEFAULT.read_bytes())
    wrong = {
        "--seed=-1": "no seed -1: give one from 0",
        f"--vgg={tmp_path / 'none.pth'}": "there is no such file",
        f"--vgg={tmp_path / 'other.pth'}": "does not fit VGG16",
        "--objective=best": "no objective 'best': choose from published, clean, direct",
    }
    for option, said in wrong.items():
        assert main(["train", str(tmp_path / "out"), option]) == 2
        told = capsys.readouterr().err
        assert said in told and told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_not_finite_ends_the_run_and_what_is_kept_stays(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(train, "ssim", lambda *_: torch.tensor(float("nan")))
        with pytest.raises(Error, match="the loss of step 1 is not finite"):
            train.run(tmp_path, train.Settings(**TINY), progress=False)
    assert not (tmp_path / "run.pth").exists()
    assert train.run(tmp_path, train.Settings(**TINY), progress=False).exists()


def test_a_folder_of_another_run_is_refused(run):
    with pytest.raises(Error, match=r"holds a run with other settings \(seed 0\): give these"):
        train.run(run, train.Settings(**TINY | {"seed": 1}), progress=False)


@pytest.mark.parametrize("name", ["settings.json", "scenes.npz", "run.pth"])
def test_a_damaged_file_of_a_run_is_one_line(run, name):
    whole = (run / name).read_bytes()
    (run / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Error, match=rf"{name}: damaged \(\w+\): remove"):
        train.run(run, train.Settings(**TINY), progress=False)


def test_few_steps_draw_no_more_scenes_than_they_show(tmp_path, capsys):
    assert main(["train", str(tmp_path / "run"), "--steps", "2"]) == 0
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["scenes"] == 8
    assert train.Settings().scenes == 2000, "of a long run"


def test_a_network_learns_a_scene(tmp_path):
    settings = train.Settings(steps=40, batch=1, scenes=1, rate=2e-3)
    train.run(tmp_path, settings, progress=False)
    loss = pd.read_csv(tmp_path / "log.csv").loss
    assert loss.tail(5).mean() < 0.5 * loss.iloc[0]


def test_pairs_show_the_same_scene_in_water_and_without(tmp_path):
    pool = train._Pool(tmp_path / "scenes.npz", train.Settings(scenes=3), progress=False)
    x, reference = pool.batch(0)
    again = pool.batch(0)
    assert torch.equal(x, again[0]) and torch.equal(reference, again[1])
    assert not torch.equal(x[0], pool.batch(1)[0][0])
    assert x.shape == reference.shape and x.min() >= 0 and x.max() <= 1
    assert np.array_equal(pool.light[0], scenes.Scene(0).rows(32, 32, 0, 32)[0].astype(np.float16))


class Clear:
    """Water that is not there."""

    near = 1.0

    def __init__(self, rng):
        pass

    def picture(self, light, metres, v, height):
        return light

    def reference(self, light, metres, v):
        return light


def test_a_picture_and_its_reference_show_the_same_place(tmp_path, monkeypatch):
    monkeypatch.setattr(train, "Water", Clear)
    monkeypatch.setattr(train, "_photographed", lambda light, *_: train.develop(light, *train.levels(light)))
    pool = train._Pool(tmp_path / "scenes.npz", train.Settings(scenes=3), progress=False)
    seen = [pool.batch(step) for step in range(8)]
    assert all(torch.equal(x, reference) for x, reference in seen)
    assert not all(torch.equal(x, x.flip(3)) for x, _ in seen), "they would look the same either way round"


def test_no_two_uses_share_a_scene():
    uses = range(train.Settings().scenes), VALIDATION, quality.SCENES, scenes.REEFS
    assert len(set().union(*uses)) == sum(map(len, uses))


def test_without_vgg_s_checkpoint_its_term_is_left_out():
    network = model.UDnet()
    x = torch.rand(1, 3, 32, 32)
    assert "perceptual" not in network.loss(x, x, perceptual=False)
    assert "perceptual" in network.loss(x, x)


def test_structural_similarity_is_the_field_s():
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(0)
    one = rng.random((24, 32, 3), np.float32)
    other = np.clip(one + rng.normal(0, 0.1, one.shape), 0, 1).astype(np.float32)
    batches = (torch.from_numpy(each).permute(2, 0, 1)[None] for each in (one, other))
    about = {"win_size": train.WINDOW, "use_sample_covariance": False, "data_range": 1.0, "channel_axis": 2}
    assert train.ssim(*batches).item() == pytest.approx(structural_similarity(one, other, **about), abs=1e-4)
