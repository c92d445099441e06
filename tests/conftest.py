"""What every test may use."""

import os
import shutil
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """A cache folder of this session's own: what is made from weights, at most 0.7 GB, is removed at its end."""
    folder = tmp_path_factory.mktemp("cache")
    os.environ["UDNET_CACHE"] = str(folder)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def shared():
    """The folder of published weights and photographs beside the repository; tests skip without it."""
    folder = REPO.parent / "shared"
    if not (folder / "models" / "UDnet_dynamic.onnx").exists():
        pytest.skip("no ../shared/models/UDnet_dynamic.onnx: the published weights are not on this machine")
    return folder


@pytest.fixture(scope="session")
def published(shared):
    """The published ONNX file."""
    return shared / "models" / "UDnet_dynamic.onnx"
