"""What fits where, asked of models: each variant's peak and time by the size of the picture, as fitted to a study.

The peak of a variant that takes the whole image is that of loading, or a fixed part and so many bytes a pixel, or by
the square of the pixels where that fits better, as with attention; a tiled one's is a fixed part and what its plan
holds. `ask` answers with them: the largest picture for a limit, the least limit for a picture, the fastest variant for
both. `capacity` fits them; those of the published study lie beside its tables, so that to ask takes no pandas.
"""

import json
from dataclasses import asdict, dataclass

import numpy as np

from udnet import NotMeasured
from udnet.pictures import images, photographs
from udnet.system import files, machine, memory
from udnet.system.memory import MIB
from udnet.tiled import kernels, plans
from udnet.variants import catalogue

FILE = "models.json"  # in the folder of a study
DAMAGED = "put it back, or fit it again: udnet.pages.publish.renew_models()"
BESIDE = photographs.BESIDE + 9 * MIB  # of the process of `enhance` beside a trial's: and its modules (measured: 8.2)
BEYOND = 2  # times the largest side measured: so far a line is followed


@dataclass(frozen=True)
class Model:
    """A variant's peak and time by the size of the picture, on so many threads."""

    variant: str
    threads: int
    loading: float  # bytes, the peak until it is loaded: no picture takes less
    fixed: float  # bytes
    slope: float  # bytes a pixel, to the power; none where the schedule is tiled
    power: int  # of the number of pixels: 1, or 2
    files: float  # bytes of the peak that are mapped from files
    excess: float  # how far, relatively, a size's peak was above the model at the most
    measured: float  # the most pixels that it was fitted to
    work: tuple  # of the sizes that were timed: pixels, or a plan's multiply-adds where the schedule is tiled
    rates: tuple  # seconds for each of those
    disk: float = 0.0  # bytes a second of a scratch file; none where the schedule has none

    @property
    def tiled(self):
        """Whether it is a plan that decides."""
        return catalogue.find(self.variant).schedule == "tiled"

    @property
    def floor(self):
        """What a tiled schedule plans on top of, in bytes, as it takes it to be itself (see `tiled.schedule`)."""
        return self.loading + kernels.RUNTIMES[catalogue.find(self.variant).runtime].START

    def plan(self, height, width, limit=None):
        """The plan of a tiled variant, the leanest or that for a limit, in bytes; None where none keeps within it."""
        size = images.padded_size(height, width)
        about = self._planned_by(size), self._winograd
        if limit is None:
            return plans.leanest(*size, self.threads, *about)
        return plans.fit(*size, self.threads, plans.usable(limit) - self.floor, *about)

    def _planned_by(self, size):
        """The `Speed` that plans are made with; None where there is no scratch file to decide on."""
        return self._speed(size) if self.disk and np.prod(size) >= plans.LARGE else None

    @property
    def _winograd(self):
        return hasattr(kernels.RUNTIMES[catalogue.find(self.variant).runtime], "winograd")

    def _speed(self, size):
        """That of every plan for a padded size: the leanest one was timed, without a scratch file."""
        rate = self._rate(plans.leanest(*size, self.threads).multiply_adds)
        return plans.Speed(1 / rate, self.disk or np.inf, np.inf)

    def peak(self, height, width, limit=None):
        """The peak of the whole process that the model expects, in bytes.

        nan where nothing keeps within the limit, or the whole image is too far beyond what was measured.
        """
        if not self.tiled:
            known = height * width <= BEYOND**2 * self.measured
            return max(self.loading, self.fixed + self.slope * (height * width) ** self.power) if known else np.nan
        plan = self.plan(height, width, limit)
        return self.fixed + plan.bytes if plan else np.nan

    def limit(self, height, width):
        """The least limit for a picture, in bytes: with room for steps above a line, and for what is beside the model.

        nan where the whole image is too far beyond what was measured.
        """
        if self.tiled:
            size = images.padded_size(height, width)
            needed = self.floor + plans.least(*size, self.threads, self._planned_by(size))
        else:
            needed = self.peak(height, width) * (1 + max(0.0, self.excess))
        return np.nan if np.isnan(needed) else plans.limit_for(needed) + BESIDE

    def seconds(self, height, width, limit=None):
        """The seconds that the first picture of a size takes: between the sizes that were timed, by their rates."""
        if not self.tiled:
            return float(height * width * self._rate(height * width))
        plan = self.plan(height, width, limit)
        return float(plan.seconds(self._speed(images.padded_size(height, width)))) if plan else np.nan

    def _rate(self, work):
        return np.exp(np.interp(np.log(work), np.log(self.work), np.log(self.rates)))


@dataclass(frozen=True)
class Answer:
    """A variant, a picture, and what the one costs with the other."""

    variant: str
    height: int
    width: int
    limit_bytes: float  # the least limit for that picture
    peak_bytes: float  # of the whole process, by the plan for the limit that is given, or for the least
    counted_bytes: float  # what a control group counts of the peak
    seconds: float  # of the first picture of its size
    scratch_bytes: float  # of its scratch file
    or_more: bool = False  # it is the largest picture that the model can tell of, not the largest that fits


def ask(known, limit=None, size=None):
    """Each `Answer` for a limit in bytes, a size (height, width), or both; an empty list where nothing fits.

    known: `Model` by variant. The fastest comes first; for a limit alone the largest picture, which is a square.
    """
    if not known:
        raise NotMeasured("no model of any variant")
    found = []
    for model in known.values():
        shape = size or (_largest(model, limit),) * 2
        least = model.limit(*shape) if shape[0] else np.nan
        if np.isnan(least) or (limit is not None and least > limit):
            continue
        about = (*shape, (least if limit is None else limit) - BESIDE)
        peak = model.peak(*about)
        scratch = model.plan(*about).scratch_bytes if model.disk else 0
        costs = least, peak, peak - model.files, model.seconds(*about), scratch
        at_edge = size is None and bool(np.isnan(model.limit(shape[0] + 8, shape[1] + 8)))
        found.append(Answer(model.variant, *shape, *costs, at_edge))
    return sorted(found, key=lambda one: (0 if size else -one.height, one.seconds))


def _largest(model, limit):
    """The largest side of a square picture, a multiple of 8, that keeps within a limit; 0 where none does.

    From above, side by side: a tiled variant's peak falls where a picture is cut into more strips.
    """
    most = min(images.MAX_PIXELS, limit / plans.ALWAYS) ** 0.5
    return next((side for side in range(int(most) // 8 * 8, 0, -8) if model.limit(side, side) <= limit), 0)


def as_text(answers, limit=None):
    """A table for a terminal of what `ask` gives for a limit in bytes, or for none; rows of a frame do as well.

    Limits beyond this machine's memory are marked.
    """
    installed, _ = machine.memory()
    answers = sorted(answers, key=lambda one: one.limit_bytes > installed)
    peak = f"peak with {memory.mib(limit)}" if limit else "peak, MiB"
    rows = [("variant", "picture", "least limit, MiB", peak, "of it counted", "scratch, MiB", "seconds")]
    for one in answers:
        least, peak, counted = (f"{size / MIB:,.0f}" for size in (one.limit_bytes, one.peak_bytes, one.counted_bytes))
        least += "*" * (one.limit_bytes > installed)
        scratch = f"{one.scratch_bytes / MIB:,.0f}"
        picture = f"{one.height}x{one.width}{' or more' * one.or_more}"
        rows.append((one.variant, picture, least, peak, counted, scratch, f"{one.seconds:,.1f}"))
    widths = [max(12, *map(len, column)) for column in zip(*rows, strict=True)]
    lines = [" ".join(f"{word:>{width}}" for word, width in zip(row, widths, strict=True)) for row in rows]
    lines += [f"* more than this machine's {memory.mib(installed)}"] if "*" in rows[-1][2] else []
    if any(one.or_more for one in answers):
        lines.append(f"or more: {BEYOND} times the largest side of the study, beyond which it can tell nothing")
    lines.append(
        "peak: of the whole process; of it counted: what is not mapped from files, which the kernel can drop;\n"
        "scratch: of a file on a disk; seconds: of the first picture, predicted for the machine of the study"
    )
    return "\n".join(lines)


# --- kept beside a study's tables ---


def write(known, folder):
    """Write the models of a study into its folder."""
    rows = [asdict(model) for model in known.values()]
    files.write_text(folder / FILE, json.dumps({"models": rows}, indent=1) + "\n")


def read(folder=files.PUBLISHED):
    """The models that were written into a study's folder, by variant."""
    path = folder / FILE
    with files.reading(path, DAMAGED):
        rows = files.read_json(path, DAMAGED)["models"]
        models = [Model(**row | {name: tuple(row[name]) for name in ("work", "rates")}) for row in rows]
        return {model.variant: model for model in models}
