"""Runtimes against float64: the stages are found in every graph, differences are those that were planted."""

import numpy as np
import onnx
import pandas as pd
import pytest

from udnet import NotMeasured
from udnet.experiments import precision
from udnet.experiments.precision import COLUMN_SUMS, COUNTED, MODULE, ONE_OPERATOR, OUTPUT
from udnet.network import prepared
from udnet.variants import catalogue


def test_differences_are_known(tmp_path):
    truth = np.arange(24.0).reshape(2, 3, 4)
    np.save(tmp_path / "00-one.npy", truth)
    values = truth.copy()
    values[1, 2, 3] += 0.5
    found = precision.Truth(tmp_path).differences("one", values)
    rms = np.sqrt((truth**2).mean())
    assert found == pytest.approx({"largest_difference": 0.5, "rms_difference": (0.25 / 24) ** 0.5, "rms": rms})


@pytest.mark.parametrize("graph", [COLUMN_SUMS, ONE_OPERATOR, COUNTED])
def test_the_stages_of_a_graph_are_the_module_s(graph, tmp_path):
    """ONNX Runtime gives for each what float64 gives."""
    precision.write_truth(tmp_path, "seeded", 64)
    path = precision._graph(graph, "seeded")
    stages = list(precision.Truth(tmp_path).stages)
    assert stages[-1] == OUTPUT and set(stages[:-1]) == set(precision.points(onnx.load(path).graph))
    rows = precision.compare(tmp_path, "seeded", 64, "onnx", graph)
    assert [row["stage"] for row in rows] == stages
    assert max(row["rms_difference"] / row["rms"] for row in rows) < 1e-5


def test_float64_by_strips_is_float64(tmp_path, monkeypatch):
    for strip in (16, 1000):
        monkeypatch.setattr(precision, "STRIP", strip)
        (tmp_path / str(strip)).mkdir()
        precision.write_truth(tmp_path / str(strip), "seeded", 64)
    for path in precision.Truth(tmp_path / "16").stages.values():
        one, other = np.load(path), np.load(tmp_path / "1000" / path.name)
        assert one.dtype == np.float64
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-12)


def test_runtimes_are_compared_into_a_table(tmp_path, monkeypatch):
    with pytest.raises(NotMeasured, match="float64"):
        precision.read(tmp_path)
    monkeypatch.setattr(
        precision, "RUNS", [("pytorch", MODULE), ("mnn", COLUMN_SUMS), (precision.FEW_UNITS, COLUMN_SUMS)]
    )
    table = precision.run(tmp_path, "seeded", (64,), progress=False)
    here = ["pytorch"] if catalogue.find("mnn").missing else ["pytorch", "mnn", precision.FEW_UNITS]
    assert list(table.variant.unique()) == here and set(table.weights) == {prepared.SEEDED}
    assert table.relative.between(0, 1e-3, inclusive="neither").all()
    (tmp_path / precision.FILE).chmod(0o400)
    pd.testing.assert_frame_equal(precision.run(tmp_path, "seeded", (64,), progress=False), table)


def test_where_a_difference_begins():
    """By hand: one run grows tenfold over all before it in its second stage, the other a thousandfold from rounding."""
    eps = float(np.finfo(np.float32).eps)
    stages = ["encoder.conv1", "mean", "normalise", OUTPUT]
    runs = {"one": [eps, eps / 100, 10 * eps, 1e9 * eps], "other": [1000 * eps, eps, 2000 * eps, eps]}
    rows = [
        ("w", 64, run, COLUMN_SUMS, stage, 7 * part, part, 1, part)
        for run, parts in runs.items()
        for stage, part in zip(stages, parts, strict=True)
    ]
    found = precision.begins(pd.DataFrame(rows, columns=[*precision.COLUMNS, "relative"])).set_index("variant")
    assert found.stage.to_dict() == {"one": "normalise", "other": "encoder.conv1"}
    assert found.times.to_dict() == pytest.approx({"one": 10, "other": 1000})
    assert found.largest_difference.to_dict() == pytest.approx({"one": 7e9 * eps, "other": 7 * eps})
