"""The tiled schedule against the whole image, and its plans against what they promise."""

import gc
import itertools
import math
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest
import torch

from udnet import Error
from udnet.analysis import arithmetic
from udnet.network import export, prepared
from udnet.pictures import images, photographs, reference
from udnet.system import guard
from udnet.system.memory import MIB
from udnet.tiled import kernels, plans, schedule
from udnet.trials import trial
from udnet.variants import catalogue, compared, enhancer, variant

LIMIT = 1e-5


@pytest.fixture(scope="module")
def files():
    weights = prepared.find("seeded")
    return {form: prepared.prepared(weights, form) for form in ("inference", "arrays")}


@pytest.fixture(scope="module")
def whole(files):
    return variant.TorchNetwork(variant.inference_module(files["inference"]))


@pytest.fixture(scope="module")
def tiled(files):
    return {
        "pytorch": compared.load_pytorch_tiled(2, files["inference"]),
        "onnx": compared.load_onnx_tiled(2, files["arrays"]),
    }


def planned(network, columns, rows, kept, winograd=False):
    """The network with a plan of such strips; `kept`: of each in turn."""

    def plan(height, width, beside=0):
        edges = sorted({*range(0, width, columns), width})
        strips = tuple((own, kept[place % len(kept)]) for place, own in enumerate(itertools.pairwise(edges)))
        return plans.Plan(height, width, strips, rows, threads=2, winograd=winograd)

    network.plan = plan
    return network


@pytest.mark.parametrize("runtime", ["pytorch", "onnx"])
@pytest.mark.parametrize(
    ("height", "width", "columns", "rows", "kept"),
    [
        (120, 136, 64, 8, (plans.NOTHING,)),  # 64 does not divide 136
        (120, 136, 64, 16, (plans.BOTTOM,)),
        (120, 136, 64, 16, (plans.FULL,)),
        (120, 136, 64, 8, (plans.INNER,)),
        (120, 136, 40, 13, (plans.INNER, plans.NOTHING, plans.FULL, plans.BOTTOM)),
        (120, 136, 136, 120, (plans.NOTHING,)),  # whole, in one piece
        (48, 72, 8, 1, (plans.FULL,)),  # the narrowest strips, row by row
        (16, 1200, 512, 16, (plans.NOTHING, plans.FULL)),
        (1032, 16, 16, 8, (plans.BOTTOM,)),
        (16, 16, 16, 8, (plans.NOTHING,)),
        (88, 24, 16, 3, (plans.INNER,)),
    ],
)
def test_the_output_is_that_of_the_whole_image(tiled, whole, runtime, height, width, columns, rows, kept):
    x = images.to_batch(reference.picture(height, width))
    output = planned(tiled[runtime], columns, rows, kept)(x)
    assert np.abs(output - whole(x)).max() <= LIMIT


@pytest.mark.parametrize(
    ("height", "width", "columns", "rows", "kept"),
    [
        (264, 136, 136, 8, (plans.NOTHING,)),
        (16, 1048, 512, 16, (plans.INNER,)),
        (376, 504, 256, 16, (plans.NOTHING, plans.FULL)),
        (120, 136, 40, 8, (plans.INNER, plans.NOTHING, plans.FULL, plans.BOTTOM)),
        (88, 24, 16, 3, (plans.INNER,)),  # rows that its graphs do not take
        (16, 16, 16, 8, (plans.NOTHING,)),
        pytest.param(1080, 1920, 512, 8, (plans.NOTHING,), marks=pytest.mark.slow),
    ],
)
def test_by_winograd_s_algorithm_too(tiled, whole, height, width, columns, rows, kept):
    x = images.to_batch(reference.picture(height, width))
    output = planned(tiled["onnx"], columns, rows, kept, winograd=True)(x)
    assert np.abs(output - whole(x)).max() <= LIMIT
    assert not np.array_equal(output, planned(tiled["onnx"], columns, rows, kept)(x)), "it is another algorithm"


@pytest.mark.parametrize("runtime", ["pytorch", "onnx"])
@pytest.mark.parametrize("size", [(8, 1000), (1, 1), (77, 131)])
def test_a_picture_of_any_size_in_bytes(tiled, whole, runtime, size):
    pixels = reference.picture(*size)
    got = planned(tiled[runtime], 64, 8, (plans.FULL, plans.NOTHING)).enhance(pixels)
    expected = variant.enhance(whole, pixels)
    assert got.shape == pixels.shape and got.dtype == np.uint8
    assert np.abs(got.astype(int) - expected).max() <= 1 and (got != expected).mean() < 1e-3  # a rounding apart


def test_a_batch_is_one_picture_after_another(tiled, whole):
    x = np.concatenate([images.to_batch(reference.picture(32, 48, seed)) for seed in (0, 1)])
    assert np.abs(planned(tiled["onnx"], 24, 8, (plans.FULL,))(x) - whole(x)).max() <= LIMIT


def test_the_same_to_the_bit_whichever_strip_is_done_first(tiled):
    x = images.to_batch(reference.picture(24, 192))
    network = planned(tiled["onnx"], 24, 8, (plans.NOTHING,))
    first = network(x)
    assert all(np.array_equal(network(x), first) for _ in range(3))


@pytest.mark.parametrize("size", [(136, 200), pytest.param((520, 776), marks=pytest.mark.slow)])
def test_nearly_uniform_channels(tiled, whole, size):
    x = export._picture(1, *size)
    for winograd in (False, True):
        output = planned(tiled["onnx"], 128, 16, (plans.FULL,), winograd)(x)
        assert np.abs(output - whole(x)).max() <= LIMIT


def test_what_fails_in_a_strip_is_the_picture_s_failure(tiled):
    def read(rows, columns):
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        planned(tiled["onnx"], 32, 8, (plans.NOTHING,))._run(32, 64, read, None)


def test_onnx_runtime_alone_takes_no_torch(files):
    code = (
        "import sys, numpy as np; from udnet.variants import compared;"
        f"compared.load_onnx_tiled(1, {str(files['arrays'])!r})(np.zeros((1, 3, 16, 16), np.float32));"
        "sys.exit(any(name in sys.modules for name in ('torch', 'onnx')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- plans ---


def test_one_strip_that_keeps_all_computes_what_the_network_does():
    height, width = 512, 768
    plan = plans.Plan(height, width, (((0, width), plans.INNER),), rows=height, threads=1)
    beside = 4 * plans.CONV * plans.WIDTH / 64 + 3 * plans.WIDTH  # the blocks at an eighth, the last layer: not counted
    calls = 16 * plans.CALL
    assert (plan.multiply_adds - calls) / (height * width) == pytest.approx(
        arithmetic.multiply_adds() - beside, rel=1e-6
    )


@pytest.mark.parametrize(("height", "width"), [(512, 512), (1080, 1920), (2160, 3840), (4320, 7680), (16, 4096)])
def test_a_larger_budget_never_computes_more(height, width):
    least = plans.leanest(height, width, 2)
    budgets = [least.bytes * 2**step for step in np.arange(0, 6, 0.5)]
    found = [plans.fit(height, width, 2, budget) for budget in budgets]
    assert all(plan.bytes <= budget for plan, budget in zip(found, budgets, strict=True))
    computed = [plan.multiply_adds for plan in found]
    assert computed == sorted(computed, reverse=True) and computed[-1] < least.multiply_adds / 2
    assert not any(plan.winograd for plan in (least, *found)), "where the runtime has no such kernels"
    if height > 16:  # of so flat a picture the maps are smaller than what passes through to make them again
        assert plans.fit(height, width, 2, least.bytes - 1) is None
    for plan in (least, *found):
        edges = [own for own, _ in plan.strips]
        assert edges[0][0] == 0 and edges[-1][1] == width
        assert all(one[1] == other[0] for one, other in itertools.pairwise(edges))
        assert all(side % 8 == 0 for own in edges for side in own)


def test_what_computes_faster_in_more_memory_is_for_limits():
    size = 1080, 1920, 2
    least = plans.leanest(*size)
    assert plans.leanest(*size, winograd=True) == least and not least.winograd
    assert plans.fit(*size, least.bytes, winograd=True) == plans.fit(*size, least.bytes)
    more = plans.fit(*size, 2 * least.bytes, winograd=True)
    assert more.winograd and more.bytes <= 2 * least.bytes
    assert sum(more.work.values()) < more.multiply_adds < least.multiply_adds


def test_a_runtime_that_has_such_kernels_uses_them(tiled):
    for name, has in {"pytorch": False, "onnx": True}.items():
        network = schedule.TiledNetwork(tiled[name].new, tiled[name].weights, 2)
        network.limit = network.floor + 2000 * MIB
        assert network.plan(512, 512).winograd == has and not network.plan(512, 504).winograd
        assert "by_winograd" not in vars(network), "made for the first picture that needs them"


def test_kernels_that_an_earlier_picture_made_count(tiled, monkeypatch):
    network = schedule.TiledNetwork(tiled["onnx"].new, tiled["onnx"].weights, 2)
    monkeypatch.setattr(plans, "WINOGRAD", 20 * MIB)
    network.limit = network.floor + 600 * MIB
    before = network.plan(504, 512)
    network.limit = math.ceil((network.floor + before.bytes) / (1 - plans.ROOM)) + 1
    assert network.plan(504, 512) == before and not before.winograd
    assert network.by_winograd, "as by running a larger picture"
    assert network.plan(504, 512).bytes <= before.bytes - plans.WINOGRAD


def test_one_network_keeps_to_its_limit_whatever_sizes_come(files):
    code = (
        "import numpy as np; from udnet.system import memory; from udnet.variants import compared;"
        f"network = compared.load_onnx_tiled(2, {str(files['arrays'])!r});"
        "network.limit = round((network.floor + 80 * memory.MIB) / 0.98);"
        "sizes = (512, 512), (504, 512), (400, 400), (384, 600), (304, 704), (512, 512);"
        "[network.enhance(np.zeros((*size, 3), np.uint8)) for size in sizes];"
        "print(memory.lifetime_peak() / network.limit)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(run.stdout) <= 1


@pytest.mark.parametrize("kept", [plans.NOTHING, plans.BOTTOM, plans.FULL, plans.INNER])
def test_maps_that_are_kept_have_the_bytes_that_the_plan_says(tiled, monkeypatch, kept):
    own, height, width = (64, 128), 64, 256
    after, both = {}, []
    each, new_map = schedule._Picture.each, schedule._Picture.new_map

    def kept_by(picture):
        (strip,) = (one for one in picture.strips if one.own == own)
        maps = [*strip.maps.values(), *([strip.hidden] if strip.hidden else [])]
        return sum(one.values.nbytes for one in maps)

    def noting_each(picture, run, argument):
        each(picture, run, argument)
        after[run.__name__] = kept_by(picture)
        return argument

    def noting_inner(picture, window, level):
        found = new_map(picture, window, level)
        if (window, level) == (plans.Windows(own, width).around(3), 0):
            both.append(kept_by(picture) + found.values.nbytes)
        return found

    monkeypatch.setattr(schedule._Picture, "each", noting_each)
    monkeypatch.setattr(schedule._Picture, "new_map", noting_inner)
    planned(tiled["onnx"], 64, 8, (kept,))(images.to_batch(reference.picture(height, width)))
    said = plans.Windows(own, width).held(height, 8, kept)
    assert said["decode"][0] == after["encode"]
    assert said["normalise"][0] == max(after["decode"], after["normalise"])
    assert said["finish"][0] == after["normalise"] == after["refine"]
    assert after["finish"] == 0
    passing = said["decode"][1] * plans.PASSING["normalise"][kept] / plans.PASSING["decode"][kept]
    assert [sum(said["normalise"]) - passing] == (both or [said["normalise"][0]])


def test_a_limit_that_cannot_be_kept_is_one_line_with_the_least(files):
    network = compared.load_onnx_tiled(2, files["arrays"], limit=MIB)
    with pytest.raises(Error, match=r"its process takes at least [\d,.]+ [MG]iB: raise the memory limit") as refused:
        network(np.zeros((1, 3, 64, 64), np.float32))
    network.limit = int(str(refused.value).split(" ")[5].replace(",", "")) * MIB
    assert network.plan(64, 64).bytes <= network.limit - network.floor, "the limit that was said is enough"


def test_what_is_beside_a_picture_is_kept_free(files):
    network = compared.load_onnx_tiled(2, files["arrays"], limit=MIB)
    network.limit = network.floor + 800 * MIB
    without, beside = network.plan(1024, 1024), 200 * MIB
    with_alpha = network.plan(1024, 1024, beside)
    assert with_alpha.bytes + beside <= network.limit - network.floor < without.bytes + beside
    network.limit -= beside
    assert network.plan(1024, 1024) == with_alpha


def test_reading_and_writing_keep_within_the_limit(files):
    """What its decoder holds of a photograph can be more than the leanest plan."""
    network = compared.load_onnx_tiled(2, files["arrays"], limit=MIB)
    network.limit = network.floor + 800 * MIB
    header = photographs.Header(1000, 500, in_and_out=2000 * MIB, beside=7 * MIB)
    with pytest.raises(Error, match=r"its process takes at least [\d,]+ MiB: raise the memory limit") as refused:
        network.plan_for(header)
    network.limit = int(str(refused.value).split(" ")[5].replace(",", "")) * MIB
    assert network.floor + header.in_and_out + header.beside < network.limit
    plan = network.plan_for(header)
    assert (plan.height, plan.width) == (1000, 504)
    network.limit -= 2 * MIB  # of which a half is for the next process
    with pytest.raises(Error, match="at least"):
        network.plan_for(header)


def test_a_limit_is_given_once():
    with pytest.raises(Error, match="onnx-tiled@512MiB names a memory limit already: give it once"):
        enhancer.load("onnx-tiled@512MiB", memory_limit=512 * MIB)


def test_a_variant_for_a_limit_by_name():
    found = catalogue.find("onnx-tiled@512MiB")
    assert (found.name, found.load.keywords, found.schedule) == ("onnx-tiled@512MiB", {"limit": 512 * MIB}, "tiled")
    assert catalogue.find("pytorch-tiled@1GiB+jemalloc").load.keywords == {"limit": 1024 * MIB}
    with pytest.raises(Error, match="pytorch has no plan for a memory limit: choose a tiled variant"):
        catalogue.find("pytorch@512MiB")
    with pytest.raises(Error, match="no memory limit 'much'"):
        catalogue.find("onnx-tiled@much")


def test_torch_runs_on_one_thread_in_every_strip(tiled, monkeypatch):
    seen = []
    make = kernels.TorchKernels.make

    def noting(self, stage, *weights):
        kernel = make(self, stage, *weights)
        run = kernel.run
        return kernels.Kernel(
            lambda *arrays: seen.append(torch.get_num_threads()) or run(*arrays), kernel.channels, kernel.channels_out
        )

    monkeypatch.setattr(kernels.TorchKernels, "make", noting)
    network = tiled["pytorch"]
    again = schedule.TiledNetwork(network.new, network.weights, 2)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        again(images.to_batch(reference.picture(32, 128)))
        assert set(seen) == {1}
        assert torch.get_num_threads() == 2, "and the caller's own number is left alone"
    finally:
        torch.set_num_threads(before)


def test_a_picture_s_arrays_do_not_outlive_it(tiled, monkeypatch):
    pictures = []
    made = schedule._Picture.__init__

    def noting(self, *arguments):
        made(self, *arguments)
        pictures.append(weakref.ref(self))

    monkeypatch.setattr(schedule._Picture, "__init__", noting)
    gc.disable()  # a cycle would wait for it
    try:
        planned(tiled["onnx"], 32, 8, (plans.FULL,))(images.to_batch(reference.picture(32, 64)))
        assert [one() for one in pictures] == [None]
    finally:
        gc.enable()


@pytest.mark.slow
def test_a_large_picture_under_a_hard_limit(any_weights):
    """As much kept as the limit has room for, and the kernel's own limit, libraries and pictures included."""
    if not guard.ControlGroup.possible():
        pytest.skip("this process may not make a memory control group")
    one = trial.Trial("onnx-tiled@256MiB", 720, 1280, 2, runs=0, weights=any_weights)
    result = trial.run(one, limit=256 * MIB)
    assert (result.status, result.error) == ("ok", "")
    assert max(row["peak_bytes"] for row in result.rows) <= 256 * MIB, "and so does all that is resident"


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_a_picture_that_is_given_up_stops_where_it_is(tiled, error):
    """Of a large one a strip takes minutes, and the pool would wait for those that run, and run those that wait."""
    network, calls = planned(tiled["onnx"], 64, 8, (plans.NOTHING,)), []

    def read(rows, columns):
        calls.append(rows)
        if len(calls) == 5:
            raise error
        return np.zeros((3, rows[1] - rows[0], columns[1] - columns[0]), np.float32)

    with pytest.raises(error):
        network._run(2048, 128, read, write=None)  # two strips at once, each of 256 pieces
    assert len(calls) < 128


def test_progress_is_told_as_the_fraction_of_all_work(tiled):
    network, told, pixels = planned(tiled["onnx"], 64, 8, (plans.NOTHING,)), [], reference.picture(64, 192)
    given = network.enhance(pixels, progress=lambda done: told.append((done, threading.get_ident())))
    assert np.array_equal(given, network.enhance(pixels))
    fractions, threads = zip(*told, strict=True)
    plan = network.plan(64, 192)
    first = plan.work["encode"] / sum(plan.work.values())
    assert fractions[2::3][0] == pytest.approx(first) and len(fractions) == schedule.PASSES * len(plan.strips)
    assert list(fractions) == sorted(set(fractions)) and fractions[-1] == 1
    assert set(threads) == {threading.get_ident()}, "where a page may be told"


def test_what_progress_raises_ends_the_picture_and_the_next_one_runs(tiled):
    class Gone(BaseException):
        """As a server raises it of a visitor who left."""

    def leave(done):
        told.append(done)
        raise Gone

    network, told, pixels = planned(tiled["onnx"], 64, 8, (plans.NOTHING,)), [], reference.picture(64, 192)
    with pytest.raises(Gone):
        network.enhance(pixels, progress=leave)
    assert len(told) == 1
    assert network.enhance(pixels).shape == pixels.shape


def test_the_seconds_of_a_plan_follow_its_work(tiled):
    network = schedule.TiledNetwork(tiled["onnx"].new, tiled["onnx"].weights, 2)
    small, large = plans.leanest(512, 512, 2), plans.leanest(1024, 1024, 2)
    assert network.seconds(large) / network.seconds(small) == pytest.approx(large.multiply_adds / small.multiply_adds)
    vars(network)["_multiply_adds"] = 1e9
    assert network.seconds(small) == pytest.approx(small.multiply_adds / 2e9)


def test_what_the_caller_holds_counts_beside_the_picture(tiled, monkeypatch):
    network, counted = tiled["onnx"], []
    monkeypatch.setattr(network, "enhance", lambda pixels, beside, progress: counted.append(beside) or pixels)
    ours = enhancer.Enhancer(None, network, None)
    picture = photographs.Picture(reference.picture(8, 8), alpha=np.zeros((8, 8), np.uint8))
    ours(picture)
    ours(picture, beside=50 * MIB)
    assert counted == [picture.beside, picture.beside + 50 * MIB]
