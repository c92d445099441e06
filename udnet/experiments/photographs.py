"""Whether `enhance` keeps to its memory limit: photographs of eight sizes and kinds, under the kernel's own limit.

Each is enhanced in a process of its own, in a memory control group of as much as `--memory-limit` says: first with the
least that `enhance` takes for it, then with twice that. The peak is that of the whole process, reading and writing the
photograph included.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageCms
from tqdm import tqdm

from udnet import Error
from udnet.analysis import scaling
from udnet.pictures import reference
from udnet.system import files, guard
from udnet.system.memory import MIB
from udnet.trials import tables

FILE = "photographs.csv"
COLUMNS = ("kind", "height", "width", "threads", "factor", "limit_bytes", "guard", "status", "peak_bytes")
ENHANCE = """
import json, sys
from udnet.__main__ import main
from udnet.system import memory
print(json.dumps([main(["enhance", *sys.argv[1:]]), memory.lifetime_peak()]))
"""
FACTORS = (1, 2)  # times the least limit
TURNED = 6  # EXIF's number for a camera that was held upright
CASES = (  # kind; height and width as the file stores it; suffix
    ("JPEG", 480, 640, ".jpg"),
    ("PNG with alpha", 1080, 1920, ".png"),
    ("16-bit grey TIFF", 1536, 2048, ".tif"),
    ("JPEG, turned, with a profile", 2000, 3000, ".jpg"),
    ("WebP", 2160, 3840, ".webp"),
    ("progressive JPEG", 3000, 4000, ".jpg"),
    ("TIFF in one strip", 4000, 6000, ".tif"),
    ("JPEG, turned, with a profile", 8000, 12000, ".jpg"),
)


def make(kind, height, width, path):
    """Write a photograph of a kind and size: a drawn reef, stretched."""
    image, options = Image.fromarray(reference.picture(height, width)), {}
    if "alpha" in kind:
        image.putalpha(image.getchannel("G"))
    if "grey" in kind:
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if "turned" in kind:
        options["exif"] = Image.Exif()
        options["exif"][0x112] = TURNED
        options["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    if "strip" in kind:
        options |= {"compression": "tiff_lzw", "tiffinfo": {278: height}}
    image.save(path, progressive="progressive" in kind, **options)


def run(folder, cases=CASES, factors=FACTORS, weights=None, progress=True):
    """Enhance every case under its limits, into `photographs.csv` of a folder, and return it; what is there is kept."""
    path = Path(folder) / FILE
    table = read(folder) if path.exists() else pd.DataFrame(columns=COLUMNS)
    done = set(table[["kind", "height", "width", "factor"]].itertuples(index=False, name=None))
    todo = [(*case, factor) for case in cases for factor in factors if (*case[:3], factor) not in done]
    for kind, height, width, suffix, factor in tqdm(todo, desc="photographs", disable=not progress or not todo):
        with files.temporary_folder() as made:
            photo, out = made / f"in{suffix}", made / f"out{suffix}"
            make(kind, height, width, photo)
            limit = factor * _least(photo, out, weights)
            ended = _enhance(photo, out, limit, weights)
        row = (kind, height, width, scaling.THREADS, factor, limit, *ended)
        table = pd.concat([table, pd.DataFrame([row], columns=COLUMNS)], ignore_index=True)
        files.write_csv(path, table)
    return table


def read(folder):
    """The table in a study's folder."""
    return tables.read_table(Path(folder) / FILE, COLUMNS, "no photograph was enhanced under a limit")


def _least(photo, out, weights):
    """The least limit for a photograph in bytes, as `enhance` says it when it refuses a smaller one."""
    said = subprocess.run(_command(photo, out, MIB, weights), capture_output=True, text=True, env=_environment())
    found = re.search(r"at least ([\d,]+) MiB", said.stderr)
    if not found:
        raise Error(f"{photo}: `enhance` names no least limit: {said.stderr.strip()[-300:]}")
    return int(found[1].replace(",", "")) * MIB


def _enhance(photo, out, limit, weights):
    """What watched over the process, how it ended, and its peak in bytes where it ended by itself."""
    with guard.limit(limit) as group:
        command = group.command(_command(photo, out, limit, weights))
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, env=_environment(), **pipes)
        group.watch(process)
        said, complaint = process.communicate()
        killed = group.killed
    failed = "oom" if killed else f"error: {complaint.strip()[-200:]}"
    if killed or not said:
        return group.kind, failed, np.nan
    code, peak = json.loads(said.splitlines()[-1])
    return group.kind, "ok" if code == 0 and out.exists() else failed, peak


def _command(photo, out, limit, weights):
    options = ["--memory-limit", str(limit), "--threads", str(scaling.THREADS)]
    options += ["--weights", str(weights)] if weights else []
    return [sys.executable, "-c", ENHANCE, str(photo), str(out), *options]


def _environment():
    return os.environ | {"PYTHONPATH": files.python_path()}
