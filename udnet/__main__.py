"""The command line: `python -m udnet COMMAND`.

Exit codes: 0 done; 1 a trial, a picture or a notebook failed, the rest is done and kept, or nothing fits; 2 the request
is wrong, nothing written; 130 stopped by Ctrl-C, 143 by SIGTERM, 129 by SIGHUP.
"""

import argparse
import json
import os
import signal
import sys
import threading
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from udnet import PARITY_LIMIT, Error, NotMeasured, __version__


def main(argv=None):
    """Run one command and return its exit code."""
    _open_streams()
    try:
        with _ended_by_signals():
            return _run(argv)
    except Error as error:
        return _tell(f"error: {error}", 2)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("udnet"):
            raise
        return _tell(f"error: this Python has no {error.name}: use .venv/bin/udnet, after `make env`", 2)
    except KeyboardInterrupt:
        return _tell("stopped; what was finished is kept", 130)
    except BrokenPipeError:  # the reader of our output has gone, as with `| head`
        return 1
    except OSError as error:
        if error.filename:  # a name that was given, too long for instance
            return _tell(f"error: {error.filename}: {error.strerror}", 2)
        return _tell(f"error: {error.strerror or error}", 1)
    except MemoryError:
        return _tell("error: out of memory: free some, or ask for less, as with --memory-limit", 1)
    finally:
        _drop_output()


def _run(argv):
    try:
        arguments = parser().parse_args(argv)
        if not arguments.run:
            parser().print_help()
        code = arguments.run(arguments) if arguments.run else 0
    except SystemExit:  # after --help, or for a signal
        sys.stdout.flush()
        raise
    sys.stdout.flush()  # here, where it is noticed that the reader has gone, or that the disk is full
    return code or 0


def _tell(text, code):
    """Say one line on stderr, and give the exit code."""
    with suppress(OSError):  # nobody can be told
        print("udnet:", text.replace("\n", "\\n"), file=sys.stderr)
    return code


def _open_streams():
    """Have the three standard streams, and let a name be printed whatever characters it has.

    Where one is closed, as under some daemons, the next file that is opened would get its number, and be written into
    by whatever complains.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it has the lowest free number, which is this one
        stream = getattr(sys, name)
        if stream is None or stream.closed:
            setattr(sys, name, os.fdopen(number, mode, closefd=False))
        elif mode == "w" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _drop_output():
    """Let go of output that cannot be written: the interpreter would complain of it at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def _ended_by_signals():
    """While this holds, SIGTERM and SIGHUP end the program as an exception does, so that what is open is put away.

    Where a library makes another error of that exception, or of Ctrl-C's, as some do while they are imported or write a
    file, it is raised again.
    """
    signals = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
    before, came = {number: signal.getsignal(number) for number in signals}, []

    def end(number, _):
        came.append(KeyboardInterrupt() if number == signal.SIGINT else SystemExit(128 + number))
        if number != signal.SIGINT:
            for other in handled:
                signal.signal(other, signal.SIG_IGN)  # the first is enough: a second would end the putting away
        raise came[-1]

    usual = (signal.SIG_DFL, signal.default_int_handler)  # not those of nohup
    main_thread = threading.current_thread() is threading.main_thread()  # no other may handle signals
    handled = [number for number in signals if main_thread and before[number] in usual]
    for number in handled:
        signal.signal(number, end)
    try:
        yield
    except Exception:
        if came:
            raise came[-1] from None
        raise
    finally:
        for number in handled:
            signal.signal(number, before[number])


class Parser(argparse.ArgumentParser):
    """argparse's, but a wrong request is one line, and so is help that cannot be written."""

    def error(self, message):
        raise Error(f"{message}; see {self.prog} --help")

    def _print_message(self, message, file=None):
        print(message, end="", file=file)


def parser():
    """The parser of every command."""
    top = Parser(prog="udnet", description="UDnet under PyTorch and ONNX Runtime: memory and time.")
    top.add_argument("--version", action="version", version=__version__)
    top.set_defaults(run=None)
    commands = top.add_subparsers(metavar="COMMAND")

    def command(run, help):
        one = commands.add_parser(run.__name__.strip("_"), help=help, description=run.__doc__)
        one.set_defaults(run=run)
        return one

    one = command(enhance, "enhance a photograph, or a folder of them")
    one.add_argument(
        "photo", type=_path, help="a picture, or a folder of them, without hidden ones and NAME_reference beside NAME"
    )
    one.add_argument("out", type=_path, help="the file to write, or a folder")
    one.add_argument(
        "--memory-limit", type=_bytes, metavar="SIZE", help="plan for it, e.g. 512MiB (default: half of what is free)"
    )
    one.add_argument(
        "--scratch",
        type=_path,
        metavar="FOLDER",
        help="on a disk, for maps that memory has no room for; none: no such file (default: for temporary files)",
    )
    _cluster(one, "enhance a folder's pictures there")
    one.add_argument("--again", action="store_true", help="a folder's pictures that are done already, too")
    _model_options(one, variant=None)

    one = command(measure, "measure one variant, or an ONNX file of yours, at one size, in fresh processes")
    one.add_argument("model", nargs="?", metavar="MODEL", help="any ONNX file, in UDnet's place")
    _inputs(one)
    one.add_argument("--size", required=True, metavar="HEIGHTxWIDTH", help="of the picture, in pixels: 512x768")
    one.add_argument("--repeats", type=_count, default=1, metavar="N", help="trials, a fresh process each (default: 1)")
    one.add_argument("--memory-limit", type=_bytes, metavar="SIZE", help="end a trial that takes more, e.g. 512MiB")
    one.add_argument("--json", action="store_true", help="one JSON object a trial, a line each")
    _model_options(one, variant="onnx")

    one = command(forecast, "what an ONNX file of yours will need at a size, before it is run there")
    one.add_argument("model", metavar="MODEL", help="any ONNX file")
    one.add_argument("--size", required=True, metavar="HEIGHTxWIDTH", help="of the picture, in pixels: 2160x3840")
    one.add_argument("--limit", type=_bytes, metavar="SIZE", help="of memory, e.g. 1GiB: does it fit?")
    one.add_argument("--threads", type=_count, metavar="N", help="default: every core")
    _inputs(one)

    one = command(plan, "what fits in how much memory: the largest picture, the least limit, the fastest variant")
    one.add_argument("--limit", type=_bytes, metavar="SIZE", help="of memory, e.g. 512MiB")
    one.add_argument("--size", metavar="HEIGHTxWIDTH", help="of the picture")
    one.add_argument("--study", type=_path, help="whose measurements to go by (default: the published study)")

    one = command(study, "run a grid of trials; goes on where it stopped")
    one.add_argument("--grid", default="quick", help="quick, full, or a TOML file")
    one.add_argument("--out", type=_path, help="default: data/results/local/GRID")
    one.add_argument("--weights", metavar="FILE", help=".pth or .onnx (default: data/weights, else the embedded ones)")
    one.add_argument("--model", metavar="FILE", help="any ONNX file in UDnet's place, by those variants that take one")
    _inputs(one)
    _cluster(one, "run the whole grid on every machine there, each into a folder of OUT")

    one = command(export, "write weights as an ONNX file, parity checked")
    one.add_argument("weights", help=".pth or .onnx")
    one.add_argument("out", type=_path, help="the .onnx file to write")

    one = command(check, "compare PyTorch with ONNX Runtime on real sizes")
    one.add_argument("weights", nargs="+", help=".pth or .onnx files")

    one = command(strip, "keep of a checkpoint what inference needs")
    one.add_argument("checkpoint", type=_path, help="a .pth or .onnx file")
    one.add_argument("out", type=_path, help="the .pth file to write")

    one = command(train, "train the network on drawn scenes; goes on where it stopped")
    one.add_argument("out", type=_path, help="folder of the run")
    one.add_argument("--objective", default="direct", help="published, clean or direct, see udnet/network/train.py")
    one.add_argument("--steps", type=_count, help="default: 2000, half an hour; few draw few scenes")
    one.add_argument("--seed", type=int, help="default: 0")
    one.add_argument("--vgg", metavar="FILE", help="VGG16's ImageNet checkpoint, for the perceptual term")

    one = command(scene, "draw an underwater scene, and the same through half as much water")
    one.add_argument("seed", type=int, help="which scene: a whole number from 0")
    one.add_argument("out", type=_path, help="a .png; its reference is written beside it")
    one.add_argument("--size", default="240x320", metavar="HEIGHTxWIDTH", help="default: 240x320")

    one = command(quality, "score the enhanced pictures: input, gray world, and weights")
    one.add_argument("out", type=_path, help="folder of the table; one that has all this is kept")
    one.add_argument("--photographs", type=_path, metavar="FOLDER", help="NAME and, for some, NAME_reference")
    one.add_argument("--weights", metavar="FILE", help="weights of your own, beside the default")
    one.add_argument("--published", metavar="FILE", help="the published weights")

    command(fetch, "download the published weights into data/weights")
    command(clean, "remove what udnet made in the user's cache folder")
    command(variants, "list the ways to run the model")

    one = command(claims, "the report's claims: value here, interval, verdict, cause")
    one.add_argument("--study", type=_path, help="default: the published study")
    one.add_argument("--json", action="store_true", help="one JSON object a claim, a line each")

    one = command(compare, "studies of several machines side by side: ratios, and which findings hold where")
    one.add_argument("studies", nargs="+", type=_path, metavar="STUDY", help="folders, as `study` and `reproduce` make")

    one = command(figures, "redraw the figures of a study")
    one.add_argument("--study", type=_path, help="default: the published study")
    one.add_argument("--out", type=_path, help="default: figures/")

    one = command(notebook, "run a notebook with parameters of your own, such as another study")
    one.add_argument("notebook", help="its number, or its path")
    one.add_argument(
        "-p", action="append", default=[], metavar="NAME=VALUE", dest="parameters", help="study=build/study"
    )
    one.add_argument("--out", type=_path, default=Path("build/notebooks"), help="folder (default: build/notebooks)")

    one = command(reproduce, "quick study, figures, notebooks and a summary, under build/")
    one.add_argument("--grid", default="quick", help="quick, full, or a TOML file")
    one.add_argument("--out", type=_path, default=Path("build"))
    command(publish, "the full study, its figures and notebooks, in place (maintainers)")
    return top


def _model_options(one, variant):
    default = f"default: {variant}" if variant else "default: onnx-tiled, else pytorch-tiled"
    one.add_argument("--variant", default=variant, metavar="NAME", help=f"see `variants`, or FILE.py:NAME ({default})")
    one.add_argument("--weights", metavar="FILE", help=".pth or .onnx (default: data/weights, else the embedded ones)")
    one.add_argument("--threads", type=_count, metavar="N", help="default: every core")


def _inputs(one):
    one.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="NAME=SHAPE",
        dest="inputs",
        help="of a further input of MODEL, where that is free: mask=1x77",
    )


def _cluster(one, help):
    one.add_argument("--cluster", metavar="ADDRESS", help=f"{help}: a dask scheduler's, or local for workers here")


def _path(text):
    if not text:  # pathlib takes it for the current folder
        raise argparse.ArgumentTypeError("no name is given")
    return Path(text)


def _count(text):
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number from 1")
    return int(text)


def _bytes(text):
    from udnet.system.memory import limit_bytes

    try:
        return limit_bytes(text)
    except Error as error:
        raise argparse.ArgumentTypeError(str(error)) from None


# --- the commands ---


def enhance(arguments):
    """Enhance a photograph, or every one in a folder; sizes, names and transparency are kept."""
    from udnet.system import progress
    from udnet.system.memory import mib
    from udnet.variants.enhancer import load

    if not arguments.photo.exists():
        raise Error(f"{arguments.photo}: no such file or folder: name a picture or a folder of pictures")
    if arguments.cluster:
        return _enhance_on_cluster(arguments)
    enhancer = load(arguments.variant, arguments.weights, arguments.threads, arguments.memory_limit, arguments.scratch)
    from udnet.pictures import folders, video  # with Pillow, which is no part of what the network plans on

    if arguments.photo.is_file() and video.is_video(arguments.photo):
        return _enhance_video(arguments, enhancer)
    told = set()

    def begin(source, header):
        if enhancer.variant.schedule != "tiled":
            return
        plan, size = enhancer.network.plan_for(header), f"{header.height}x{header.width}"  # refused where none fits
        if size not in told:
            peak = mib(enhancer.network.floor + plan.bytes + header.beside)
            progress.say(f"{source}: {size}, {enhancer.variant.name} in {plan}; about {peak} in all")
            told.add(size)

    return _enhance(arguments, folders.one_by_one(enhancer, begin), enhancer)


def _enhance_video(arguments, enhancer):
    from udnet.pictures import video
    from udnet.system import progress

    def enhance(pixels):
        return enhancer(pixels, enhancer.held)  # by decoder and encoder, and this frame

    try:
        counts = video.enhance_video(enhance, arguments.photo, arguments.out, _by(enhancer), arguments.again)
    except video.Unfinished as error:
        progress.say(f"udnet: {error}")
        return 1
    said = f"{counts.done} frame{'s' if counts.done != 1 else ''} enhanced, {counts.kept} kept"
    print(f"{arguments.out}: {said}; {enhancer.variant.name}, {enhancer.weights.caption}")
    return 0


def _enhance_on_cluster(arguments):
    from udnet.cluster import workers
    from udnet.system import guard
    from udnet.variants.enhancer import choose

    if not arguments.photo.is_dir():
        raise Error(f"{arguments.photo}: no folder: --cluster is for one of pictures")
    choose(arguments.variant, arguments.memory_limit, arguments.scratch)  # refused here, before anything is started
    limit, total = arguments.memory_limit, arguments.memory_limit or guard.free() // 2
    with workers.connected(arguments.cluster, arguments.threads, total) as client:
        from udnet.cluster import pictures

        if arguments.cluster == workers.LOCAL and (limit or arguments.variant is None):
            limit = workers.share(total, len(workers.addresses(client)))
        enhancing = pictures.Enhancing(arguments.variant, arguments.weights, limit, arguments.scratch)
        return _enhance(arguments, pictures.on(client, enhancing), enhancing)


def _enhance(arguments, each, enhancing):
    from udnet.pictures import folders

    outcome = folders.enhance_path(each, arguments.photo, arguments.out, _by(enhancing), arguments.again)
    counts = f"{outcome.done} enhanced, {outcome.kept} kept, {len(outcome.failures)} failed"
    if outcome.missing:
        counts += f", {outcome.missing} missing"
    if arguments.photo.is_dir() or outcome.done:
        said = f"{counts}; " * arguments.photo.is_dir() + f"{enhancing.variant.name}, {enhancing.weights.caption}"
        print(f"{arguments.out}: {said}")
    return 1 if outcome.failures or outcome.missing else 0


def _by(enhancing):
    """What a picture was enhanced by: whatever the plan, its output is the same."""
    return enhancing.variant.name.partition("@")[0], enhancing.weights.sha256


def measure(arguments):
    """Measure one variant at one size, of UDnet or of an ONNX file of yours: a fresh process for every repeat."""
    from tqdm import tqdm, trange

    from udnet.pictures import images
    from udnet.system import machine
    from udnet.trials import trial

    height, width = images.parse_size(arguments.size)
    threads = machine.threads(arguments.threads)
    one = trial.Trial(arguments.variant, height, width, threads, weights=arguments.weights, **_model(arguments))
    failed = False
    for repeat in trange(arguments.repeats, desc=one.name, unit="trial", leave=False, disable=None):
        result = trial.run(replace(one, repeat=repeat), limit=arguments.memory_limit)
        failed |= result.status != "ok"
        said = (
            _as_json(one, repeat, result) if arguments.json else _as_text(one, repeat, result, arguments.memory_limit)
        )
        tqdm.write(said)
        sys.stdout.flush()
    return 1 if failed else 0


def _model(arguments):
    """What runs in UDnet's place, for a trial or a study."""
    return {"model": arguments.model, "inputs": tuple(arguments.inputs)}


def _as_json(one, repeat, result):
    from udnet.trials.tables import PHASE_COLUMNS

    return json.dumps(
        {
            **{name: getattr(one, name) for name in ("variant", "model", "height", "width", "threads")},
            "repeat": repeat,
            "status": result.status,
            "error": result.error,
            "phases": [{name: row.get(name) for name in PHASE_COLUMNS} for row in result.rows],
        }
    )


def _as_text(one, repeat, result, limit):
    from udnet.system import guard
    from udnet.system.memory import MIB, mib

    model = f" {one.model}" if one.model else ""
    size = f"{one.height}x{one.width}"
    lines = [f"{one.variant}{model} {size}, {one.threads} threads, repeat {repeat}: {result.status}"]
    lines += [result.error] if result.error else []
    lines.append(f"{'phase':12} {'seconds':>9} {'end MiB':>9} {'private':>9} {'peak MiB':>9}")
    for row in result.rows:
        if "peak_bytes" in row:
            sizes = (row[f"{name}_bytes"] / MIB for name in ("rss_end", "private_end", "peak"))
            lines.append(
                f"{row['phase']:12} {row['seconds'] / row['runs']:9.3f} " + " ".join(f"{s:9.1f}" for s in sizes)
            )
    if limit and result.status == "ok" and max(row["peak_bytes"] for row in result.rows) > limit:
        lines.append(f"a peak above {mib(limit)}, the limit: {guard.uncounted()}")
    return "\n".join(lines)


def forecast(arguments):
    """Say what each variant will need for a large picture, from trials with small ones and from the graph."""
    from tqdm import tqdm

    from udnet.experiments import forecast

    found = []
    with tqdm(bar_format="{desc} {elapsed}", leave=False, disable=None) as bar:

        def begin(one):
            bar.set_description(f"tries {one.variant} at {one.height}x{one.width}")

        about = {"threads": arguments.threads, "inputs": arguments.inputs, "begin": begin}
        found += forecast.forecast(arguments.model, arguments.size, **about)
    print(forecast.as_text(found, arguments.limit))
    known = [one for one in found if not one.error]
    return 0 if any(not arguments.limit or one.fits(arguments.limit) != "no" for one in known) else 1


def plan(arguments):
    """Say what fits: for a limit the largest picture, for a size the least limit, for both the fastest variant."""
    from udnet.analysis import prediction
    from udnet.pictures import images
    from udnet.system.memory import mib

    if not (arguments.limit or arguments.size):
        raise Error("give --limit, --size, or both")
    size = images.parse_size(arguments.size) if arguments.size else None
    known = _fitted(arguments.study) if arguments.study else prediction.read()
    fits = prediction.ask(known, arguments.limit, size)
    if not fits:
        least = min(prediction.ask(known, size=size or (16, 16)), key=lambda one: one.limit_bytes, default=None)
        if least is None:
            far = f"{arguments.size} is beyond {prediction.BEYOND} times the largest side of the study"
            raise Error(f"{far}: study larger pictures, or ask forecast")
        wanted = f"{arguments.size or 'any picture'} takes a limit of {mib(least.limit_bytes)}, by {least.variant}"
        return _tell(f"nothing keeps within {mib(arguments.limit)}: {wanted}", 1)
    print(prediction.as_text(fits, arguments.limit))
    return 0


def _fitted(study):
    from udnet.analysis import capacity
    from udnet.trials import tables

    try:
        return capacity.models(tables.read(study))
    except NotMeasured as reason:
        remedy = f"run a grid that has as many; why trials failed is in {study / 'trials.csv'}"
        raise Error(f"{study}: {reason}: {remedy}") from None


def study(arguments):
    """Run a grid of trials into a folder of tables; what is there already is kept."""
    if arguments.cluster:
        return max([_say_study(done) for done in _studies(arguments)])
    from udnet.trials.study import run

    return _say_study(run(arguments.grid, arguments.out, arguments.weights, **_model(arguments)))


def _studies(arguments):
    """The study of every machine of a cluster, or the `Error` that ended it."""
    from udnet.cluster import workers

    if not arguments.out:
        raise Error("name a folder for the machines' studies: --out FOLDER")
    with workers.connected(arguments.cluster, threads=1) as client:
        from udnet.cluster import studies

        about = arguments.grid, arguments.out, arguments.weights
        return studies.run(client, *about, **_model(arguments)).values()


def _say_study(done):
    if isinstance(done, Error):
        return _tell(f"{done}; the same command goes on", 1)
    failed = done.trials[done.trials.status != "ok"]
    print(f"{done.folder}: {done.trials.trial.nunique()} trials, {len(failed)} ended otherwise than ok")
    for (status, error), alike in failed.groupby(["status", "error"], sort=False):
        more = f" and {len(alike) - 1} more" if len(alike) > 1 else ""
        print(f"  {alike.trial.iloc[0]}{more}: {status}, {error}")
    return 1 if len(failed) else 0


def export(arguments):
    """Write weights as one ONNX file with free batch, height and width; refused where its output differs."""
    from udnet.network import prepared
    from udnet.network.export import export

    difference = export(prepared.find(arguments.weights).path, arguments.out)
    print(f"{arguments.out}: {arguments.out.stat().st_size:,} bytes, output within {difference:.1e} of PyTorch's")


def check(arguments):
    """Compare PyTorch with ONNX Runtime on the same weights at real sizes."""
    from udnet.network.prepared import check as compare

    failed = False
    for weights in arguments.weights:
        for size, difference in compare(weights):
            failed |= not difference <= PARITY_LIMIT
            print(f"{weights}  {size:>12}  largest difference {difference:.1e}", flush=True)
    return 1 if failed else 0


def strip(arguments):
    """Keep the inference path of a checkpoint, drop what training alone needs."""
    from udnet.network.checkpoint import strip

    strip(arguments.checkpoint, arguments.out)
    before, after = (path.stat().st_size / 2**20 for path in (arguments.checkpoint, arguments.out))
    print(f"{arguments.out}: {after:.1f} MiB of {before:.1f} MiB kept")


def train(arguments):
    """Train the network on drawn scenes, into a folder; what is there already is gone on with."""
    from udnet.network.train import Settings, run

    given = {name: getattr(arguments, name) for name in ("objective", "steps", "seed", "vgg")}
    print(run(arguments.out, Settings(**{name: value for name, value in given.items() if value is not None})))


def scene(arguments):
    """Draw an underwater scene by its seed, and beside it the same in white light through half the water."""
    from udnet.pictures import images, scenes

    if arguments.out.suffix.lower() != ".png":
        raise Error(f"{arguments.out}: give a name that ends in .png")
    if arguments.seed < 0:
        raise Error(f"no scene {arguments.seed}: give a seed from 0")
    scenes.save(scenes.draw(arguments.seed, *images.parse_size(arguments.size)), arguments.out)
    print(arguments.out)


def quality(arguments):
    """Score what enhances pictures, by PSNR and SSIM where there is a reference, and by UIQM and UCIQE."""
    from udnet.experiments.quality import run, table

    if arguments.photographs and not arguments.photographs.is_dir():
        raise Error(f"no folder {arguments.photographs}")
    scores = run(arguments.out, arguments.photographs, arguments.published, arguments.weights)
    print(table(scores).to_string())


def fetch(arguments):
    """Download the published ONNX file into data/weights, checked by its sha256."""
    from udnet.network.prepared import fetch

    print(fetch())


def clean(arguments):
    """Remove the stand-ins and conversions that udnet made in the user's cache folder."""
    from udnet.network.prepared import cache_folder, clean

    print(f"{cache_folder()}: {clean() / 2**20:.1f} MiB freed")


def variants(arguments):
    """List the ways to run the model: those that are compared, the rungs of loading, the levers of whole-image runs."""
    import shutil
    from textwrap import fill

    from udnet.variants.catalogue import FAMILIES, family
    from udnet.variants.variant import RUNTIMES

    width = max(60, shutil.get_terminal_size().columns)
    sees = {"whole": "the whole image at once", "tiled": "strip by strip"}
    for one in (one for name in FAMILIES for one in family(name).values()):
        print(f"{one.name}: {RUNTIMES[one.runtime]}, {sees[one.schedule]}")
        print(fill(one.summary, width, initial_indent="    ", subsequent_indent="    "))
    print("\nNAME@512MiB: a tiled one, with the plan for that limit; NAME+jemalloc: under another allocator;")
    print("FILE.py:NAME: a udnet.Variant of your own")


def claims(arguments):
    """Judge every claim of the original report by a study: value, interval, verdict and cause."""
    from udnet.analysis import claims
    from udnet.experiments import audit
    from udnet.trials import tables

    done = tables.read(arguments.study or tables.PUBLISHED)
    try:
        found = audit.read(done.folder)
    except NotMeasured as reason:
        raise Error(f"{done.folder}: {reason}: name a study that `udnet reproduce` has made") from None
    for one in claims.judge(done, found):
        print(json.dumps(claims.as_dict(one)) if arguments.json else claims.as_text(one))


def compare(arguments):
    """Put studies of several machines side by side, memory and time apart; nothing is pooled."""
    from udnet.analysis import machines

    print(machines.as_text(machines.read(arguments.studies)))


def figures(arguments):
    """Redraw every figure of a study, SVG and PNG."""
    from udnet.pages.publish import draw

    for path in draw(arguments.study, arguments.out):
        print(path)


def notebook(arguments):
    """Run a notebook top to bottom into a folder; -p changes what its cell of parameters says.

    A value is Python's, the path of something that is there, or a text: -p study=build/study -p "variants=['onnx']".
    """
    from udnet.pages import notebooks, publish

    known = {path.stem.partition("-")[0].lstrip("0"): path for path in publish.sources()}
    path = known.get(arguments.notebook.lstrip("0"), Path(arguments.notebook))
    if notebooks.run(path, arguments.out, dict(map(notebooks.parse, arguments.parameters))):
        return 1
    print(arguments.out / path.name)
    return 0


def reproduce(arguments):
    """Study this machine in a few minutes and compare it with the published study."""
    from udnet.pages.publish import reproduce

    return reproduce(arguments.grid, arguments.out)


def publish(arguments):
    """Run the full study and renew everything that is published from it."""
    from udnet.pages.publish import publish

    return publish()


if __name__ == "__main__":
    sys.exit(main())
