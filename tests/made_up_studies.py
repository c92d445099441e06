"""Studies whose every number is known."""

import json
from itertools import product

import pandas as pd

from udnet.system.memory import MIB
from udnet.trials import tables
from udnet.trials.trial import PHASES

COSTS = {  # MiB until loaded, MiB of inference fixed, bytes a pixel, microseconds a pixel
    "pytorch-published": (1350, 300, 2000, 10),
    "pytorch": (300, 300, 2000, 10),
    "pytorch-lean": (300, 280, 1000, 11),
    "onnx": (90, 60, 3000, 5),
    "onnx-lean": (90, 60, 1500, 6),
}


def fabricate(folder, costs=COSTS, sides=(64, 128, 256, 512), repeats=2, failed=(), **machine):
    """A study in a folder whose every number follows from `costs`; `machine`: what is described otherwise."""
    rows = []
    for (variant, (load, fixed, slope, time_)), side, repeat in product(costs.items(), sides, range(repeats)):
        peaks = [20 * MIB, 250 * MIB, load * MIB, fixed * MIB, fixed * MIB + slope * side**2]
        for phase, peak in zip(PHASES, map(round, peaks), strict=True):
            row = dict.fromkeys(name for name in tables.COLUMNS if name.endswith("_bytes"))
            row |= {
                "trial": f"{variant}/{side}x{side}/t2/r{repeat}",
                "variant": variant,
                "runtime": variant.partition("-")[0],
                "schedule": "tiled" if "tiled" in variant else "whole",
            }
            row |= {"height": side, "width": side, "threads": 2, "repeat": repeat, "phase": phase, "runs": 3}
            row |= {"seconds": 3e-6 * time_ * side**2, "rss_end_bytes": peak, "peak_bytes": peak}
            rows.append(row | {"peak_is_exact": True, "status": "error" if variant in failed else "ok"})
    folder.mkdir(parents=True)
    frame = pd.DataFrame(rows).reindex(columns=tables.COLUMNS)
    frame.to_csv(folder / "trials.csv", index=False)
    described = {
        "grid": "tiny",
        "trials": frame.trial.nunique(),
        "seed": 0,
        "processor": "A processor <of note>",
        "cores": 2,
        "memory_bytes": 8 * 2**30,
        "system": "Linux",
        "kernel": "6.1",
        "allocator": "glibc 2.36",
        "huge_pages": "madvise",
        "python": "3.11.7",
        "packages": {"torch": "2.13.0", "onnxruntime": "1.32.0"},
        "weights": "weights: seeded",
        "commit": "0123456789",
        "date": "2026-11-22T12:00:00+00:00",
    }
    (folder / "machine.json").write_text(json.dumps(described | machine))
    return tables.read(folder)
