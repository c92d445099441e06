"""Photographs under a limit: what is made, what is measured, what is gone on with."""

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from udnet import NotMeasured
from udnet.experiments import photographs as kept
from udnet.pictures import photographs
from udnet.system.memory import MIB


@pytest.mark.parametrize("case", kept.CASES, ids=lambda case: f"{case[0]} {case[1]}x{case[2]}")
def test_what_is_made_is_what_is_said(case, tmp_path):
    kind, height, width, suffix = case
    kept.make(kind, height // 40, width // 40, tmp_path / f"in{suffix}")
    with Image.open(tmp_path / f"in{suffix}") as image:
        assert image.format == photographs.KINDS[suffix]
        assert ("grey" in kind) == image.mode.startswith("I;16")
        assert ("alpha" in kind) == image.has_transparency_data
        assert ("progressive" in kind) == bool(image.info.get("progressive"))
        assert ("profile" in kind) == bool(image.info.get("icc_profile"))
        assert "strip" not in kind or image.tag_v2[278] == height // 40
    picture = photographs.read(tmp_path / f"in{suffix}")
    sides = picture.pixels.shape[:2]
    assert sides[:: -1 if "turned" in kind else 1] == (height // 40, width // 40)


def test_photographs_keep_to_their_limit(tmp_path, any_weights):
    case = ("JPEG, turned, with a profile", 120, 160, ".jpg")
    table = kept.run(tmp_path, [case], [1], any_weights, progress=False)
    assert table[["kind", "height", "width", "factor", "status"]].values.tolist() == [[*case[:3], 1, "ok"]]
    assert (table.limit_bytes % MIB == 0).all()
    assert 0.7 < (table.peak_bytes / table.limit_bytes).item() <= 1
    table.assign(peak_bytes=1).to_csv(tmp_path / kept.FILE, index=False)
    again = kept.run(tmp_path, [case], [1], any_weights, progress=False)
    assert again.peak_bytes.tolist() == [1], "what is there is kept"


def test_one_that_fails_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(kept, "_least", lambda *_: MIB)
    table = kept.run(tmp_path, [("JPEG", 64, 64, ".jpg")], [1], progress=False)
    assert table.status.item() == "oom" or table.status.item().startswith("error: ")
    assert np.isnan(table.peak_bytes.item())
    pd.testing.assert_frame_equal(kept.read(tmp_path), table, check_dtype=False)


def test_nothing_was_measured(tmp_path):
    with pytest.raises(NotMeasured, match="no photograph"):
        kept.read(tmp_path)
