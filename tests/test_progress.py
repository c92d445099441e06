"""A bar where there is tqdm, and lines in either case."""

import subprocess
import sys

import pytest
from conftest import REPO

from udnet.system.progress import bar, say


@pytest.fixture(params=["tqdm", "no tqdm"])
def installed(request, monkeypatch):
    """With tqdm and without."""
    if request.param == "no tqdm":
        monkeypatch.setitem(sys.modules, "tqdm", None)
    return request.param == "tqdm"


@pytest.mark.parametrize("shown", [True, False])
def test_things_are_gone_through(installed, shown, capfd):
    with bar("abc", shown, desc="letters") as letters:
        assert list(letters) == ["a", "b", "c"]
    assert ("letters: 100%" in capfd.readouterr().err) == (installed and shown)


def test_a_bar_without_things_is_told(installed, capfd):
    with bar(total=4, desc="passes") as told:
        told.update(3)
        told.update(1)
    assert ("4/4" in capfd.readouterr().err) == installed


def test_a_line_is_said(installed, capfd):
    with bar("abc"):
        say("a line")
    said = capfd.readouterr()
    assert said.out == "" and "a line\n" in said.err.replace("\r", "\n")


def test_what_shows_nothing_imports_nothing():
    code = (
        "import sys; from udnet.system.progress import bar, say; list(bar('ab', False)); say('c'); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert "tqdm" not in done.stdout.split() and done.stderr == "c\n"
