"""Training: UDnet on drawn scenes, seeded; interrupted in any way, it goes on as if it had not been.

A run is a folder: `settings.json`; `scenes.npz`, light and range of the scenes that it draws from; `run.pth`, all that
the next step depends on; `log.csv`; at the end `udnet.pth`, the inference path alone. The batch of a step follows from
the seed and the number of the step, so nothing else has to be kept. Sums are rounded otherwise by another number of
threads.

Objectives, each with the perceptual term of VGG16 where its ImageNet checkpoint is given:
    published   the published loss, both branches; the target is the picture itself, stretched or equalised
    clean       the same, with the scene's clean reference as the target
    direct      the inference path alone, by its squared error from the clean reference and its structural similarity
"""

import io
import json
import math
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch.nn import functional as F

from udnet import Error
from udnet.network import checkpoint, model
from udnet.pictures import metrics, scenes
from udnet.pictures.images import to_batch, to_pixels
from udnet.pictures.water import Water, develop, levels, to_bytes
from udnet.system import files, machine
from udnet.system.files import alone, write_csv

OBJECTIVES = ("published", "clean", "direct")
DRAWN = 192  # height and width of the scenes as they are kept
SIDES = range(96, 168, 8)  # of a batch's pictures, in pixels
SMALLEST = 0.45  # of a scene's side, what a picture shows of it
VALIDATION = range(10**6, 10**6 + 8)  # seeds of the scenes that the log's PSNR is of, never trained on
TINT = 0.2  # standard deviation of the logarithm of a camera's gain of a colour
AVERAGED = 0.998  # share of the past in the running mean of the weights, which is what is kept
STRUCTURE = 0.05  # weight of the loss of structural similarity
WINDOW = 7  # pixels, of structural similarity
KEEP_SECONDS = 60  # between two states on disk
LOG_STEPS = 200


@dataclass(frozen=True)
class Settings:
    """What decides a run."""

    objective: str = "direct"
    steps: int = 2000
    batch: int = 4
    scenes: int = 2000
    rate: float = 1e-3  # of Adam, falling to nothing by a cosine
    seed: int = 0
    vgg: str = ""  # VGG16's ImageNet checkpoint; without one the perceptual term is left out

    def __post_init__(self):
        object.__setattr__(self, "scenes", min(self.scenes, self.steps * self.batch))  # no more than are shown


def run(out, settings, progress=True):
    """Train into the folder `out`, or go on there; returns the path of the inference-only weights.

    `Error`, with nothing written, where the settings cannot be met or are not those of the run in the folder.
    """
    if settings.objective not in OBJECTIVES:
        raise Error(f"no objective {settings.objective!r}: choose from {', '.join(OBJECTIVES)}")
    if settings.seed < 0:
        raise Error(f"no seed {settings.seed}: give one from 0")
    for name in ("run.pth", "udnet.pth"):
        files.not_itself(out / name, settings.vgg)
    state = _State(settings)
    with alone(out):
        _same(out / "settings.json", settings)
        if progress and not settings.vgg:
            print("udnet: without --vgg the perceptual term is left out of the loss", file=sys.stderr)
        pool = _Pool(out / "scenes.npz", settings, progress)
        if (out / "run.pth").exists():
            state.restore(out / "run.pth")
        _go(out, state, pool, progress)
        write_csv(out / "log.csv", pd.DataFrame(state.rows))  # once more: a kill may have come before it
        checkpoint.save(state.averaged(), out / "udnet.pth")
    return out / "udnet.pth"


def _same(path, settings):
    """Refuse a folder of other settings."""
    wanted = asdict(settings)
    there = files.read_json(path, "remove its folder, or name another") if path.exists() else wanted
    if other := ", ".join(f"{name} {there.get(name)!r}" for name in wanted if there.get(name) != wanted[name]):
        raise Error(f"{path.parent} holds a run with other settings ({other}): give these, or another folder")
    files.write_text(path, json.dumps(wanted, indent=1) + "\n")


def _go(out, state, pool, progress):
    from tqdm import tqdm

    settings, kept = state.settings, time.monotonic()
    with tqdm(total=settings.steps, initial=state.step, disable=not progress, unit=" steps") as bar:
        while state.step < settings.steps:
            state.advance(*pool.batch(state.step))
            bar.update()
            last = state.step == settings.steps
            if state.step % LOG_STEPS == 0 or last:
                row = state.note()
                bar.set_postfix_str(f"loss {row['loss']:.4f}, held-out PSNR {row['psnr']:.2f} dB")
            if time.monotonic() - kept > KEEP_SECONDS or last:
                state.keep(out)
                kept = time.monotonic()


class _State:
    """A run between two steps: the network, its optimiser, the running mean of its weights, the log."""

    def __init__(self, settings):
        self.settings, self.step, self.seconds, self.rows, self.terms = settings, 0, 0.0, [], []
        self.perceptual = model.PerceptualLoss(_features(settings.vgg)) if settings.vgg else None
        self.validation = [scenes.draw(seed, DRAWN, DRAWN) for seed in VALIDATION]
        torch.manual_seed(settings.seed)
        self.network = model.InferenceUDnet() if settings.objective == "direct" else model.UDnet()
        if self.perceptual and settings.objective != "direct":
            self.network.VGG16 = self.perceptual
        self.network.to(memory_format=torch.channels_last)
        self.parameters = list(self.network.decoder.parameters())
        self.optimiser = torch.optim.Adam(self.parameters, settings.rate)
        self.mean = {name: value.clone() for name, value in self.network.decoder.state_dict().items()}

    def advance(self, x, reference):
        """One step."""
        began = time.monotonic()
        torch.manual_seed(int(np.random.default_rng([self.settings.seed, 1, self.step]).integers(2**63)))
        for group in self.optimiser.param_groups:
            group["lr"] = self.settings.rate * (1 + math.cos(math.pi * self.step / self.settings.steps)) / 2
        terms = self.losses(x, reference)
        loss = sum(terms.values())
        if not loss.isfinite():
            raise Error(f"the loss of step {self.step + 1} is not finite: train with another seed, in another folder")
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimiser.step()
        self.step += 1
        share = min(AVERAGED, self.step / (self.step + 10))
        for name, value in self.network.decoder.state_dict().items():
            self.mean[name].lerp_(value, 1 - share)
        self.terms.append({name: term.item() for name, term in terms.items()})
        self.seconds += time.monotonic() - began

    def losses(self, x, reference):
        """The terms of the loss, by name."""
        if self.settings.objective == "direct":
            with torch.autocast("cpu", torch.bfloat16):  # 1.6 times as fast; the weights themselves stay in float32
                output = self.network(x)
            output = output.float()
            terms = {"mse": F.mse_loss(output, reference), "structure": STRUCTURE * (1 - ssim(output, reference))}
            return terms | ({"perceptual": self.perceptual(output, reference)} if self.perceptual else {})
        target = model.draw_target(x) if self.settings.objective == "published" else reference
        return self.network.loss(x, target, perceptual=self.perceptual is not None)

    def note(self):
        """A row of the log: means over the steps since the last one, PSNR on scenes that are never trained on."""
        means = pd.DataFrame(self.terms).mean().to_dict()
        self.terms = []
        row = {"step": self.step, "seconds": round(self.seconds, 1), "loss": sum(means.values()), **means}
        row["psnr"] = self.psnr()
        self.rows.append(row)
        return row

    def averaged(self):
        """The running mean of the inference path's weights, by their names in a checkpoint."""
        names = model.InferenceUDnet().state_dict()
        return {name: self.mean[name.removeprefix("decoder.")].contiguous().clone() for name in names}

    def psnr(self):
        """Of the running mean of the weights, on the scenes that are never trained on, dB."""
        network = model.InferenceUDnet()
        network.load_state_dict(self.averaged())
        with torch.inference_mode():
            outputs = [network(torch.from_numpy(to_batch(view.picture))).numpy() for view in self.validation]
        pairs = zip(outputs, self.validation, strict=True)
        return float(np.mean([metrics.psnr(to_pixels(one, DRAWN, DRAWN), view.reference) for one, view in pairs]))

    def keep(self, out):
        """Write the state, then the log."""
        state = {
            "network": self.network.decoder.state_dict(),  # all that is trained
            "optimiser": self.optimiser.state_dict(),
            "mean": self.mean,
            **{name: getattr(self, name) for name in ("step", "seconds", "rows", "terms")},
        }
        with files.replacing(out / "run.pth") as part:
            torch.save(state, part)
        if self.rows:
            write_csv(out / "log.csv", pd.DataFrame(self.rows))

    def restore(self, path):
        """Take up a state."""
        with files.reading(path, "remove it, and the run begins anew"):
            state = torch.load(path, weights_only=True)
            self.network.decoder.load_state_dict(state["network"])
            self.optimiser.load_state_dict(state["optimiser"])
            for name in ("mean", "step", "seconds", "rows", "terms"):
                setattr(self, name, state[name])


def _features(path):
    """VGG16's features from its ImageNet checkpoint; `CheckpointError` for any other file."""
    vgg = model.VGG16()
    checkpoint.load_into(vgg, checkpoint.read(path), path)
    return vgg.features


def ssim(output, target):
    """Mean structural similarity of two batches in [0, 1], by square windows (Wang et al. 2004)."""

    def mean(x):
        return F.avg_pool2d(x, WINDOW, 1)

    one, other = mean(output), mean(target)
    variances = mean(output * output) - one * one + mean(target * target) - other * other
    covariance = mean(output * target) - one * other
    c1, c2 = 0.01**2, 0.03**2
    light = (2 * one * other + c1) / (one * one + other * other + c1)
    return (light * (2 * covariance + c2) / (variances + c2)).mean()


# --- pictures to train on ---


class _Pool:
    """Scenes, drawn once; every batch sees some of them in other water, by another camera."""

    def __init__(self, path, settings, progress):
        if not path.exists():
            _draw_all(path, settings, progress)
        with files.reading(path, "remove it, and its scenes are drawn again"), np.load(path) as known:
            self.light, self.range = known["light"], known["range"]
        self.settings = settings

    def batch(self, step):
        """Pictures and their clean references: two of (B, 3, side, side) in [0, 1]."""
        rng = np.random.default_rng([self.settings.seed, 0, step])
        side = int(rng.choice(SIDES))
        pairs = [self.pair(rng, side) for _ in range(self.settings.batch)]
        return tuple(
            torch.from_numpy(np.stack(one)).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
            for one in zip(*pairs, strict=True)
        )

    def pair(self, rng, side):
        """A picture and its reference, side x side x 3."""
        place = rng.integers(len(self.light))
        shown = int(rng.integers(int(SMALLEST * DRAWN), DRAWN + 1))
        top, left = rng.integers(0, DRAWN - shown + 1, 2)
        at = top + (np.arange(side) * shown // side), left + (np.arange(side) * shown // side)
        if rng.random() < 0.5:
            at = at[0], at[1][::-1]
        light, clear = (one[place][at[0]][:, at[1]].astype(np.float32) for one in (self.light, self.range))
        water, v = Water(rng), (at[0] + 0.5) / DRAWN
        metres = water.near * clear
        reference = water.reference(light, metres, v)
        picture = _photographed(water.picture(light, metres, v, side), water, rng)
        return picture, develop(reference, *levels(reference))


def _photographed(linear, water, rng):
    """As cameras do it: in wrong colours, over- and underexposed, noisy, compressed; sRGB in [0, 1]."""
    linear = linear * np.exp(rng.normal(0, TINT, 3)).astype(np.float32)
    black, white = levels(linear)
    picture = develop(linear, black * rng.uniform(0, 1), white * rng.uniform(0.6, 1.5))
    picture += water.noise * rng.standard_normal(picture.shape, np.float32)
    pixels = to_bytes(picture)
    if rng.random() < 0.6:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "JPEG", quality=int(rng.integers(50, 96)))
        pixels = np.asarray(Image.open(file))
    return pixels.astype(np.float32) / 255


def _draw_all(path, settings, progress):
    from tqdm import tqdm

    seeds = range(settings.scenes)
    # not processes, which would outlive a kill and hold the folder
    with ThreadPoolExecutor(machine.cores()) as workers:
        drawn = workers.map(_drawn, seeds)
        parts = list(tqdm(drawn, total=len(seeds), disable=not progress, unit=" scenes"))
    light, metres = (np.stack(one) for one in zip(*parts, strict=True))
    with files.replacing(path) as part:
        np.savez(part, light=light, range=metres)


def _drawn(seed):
    return tuple(one.astype(np.float16) for one in scenes.Scene(seed).rows(DRAWN, DRAWN, 0, DRAWN))
