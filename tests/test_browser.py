"""The notebooks as a reader has them, in JupyterLab in a browser: they run, figures follow cells, the controls answer.

Each test leaves screenshots of the whole notebook, page by page, in its `tmp_path`.
"""

import base64
import io
import json
import os
import shutil
import socket
import sys
import time
from pathlib import Path

import psutil
import pytest
from conftest import BROWSER, REPO
from PIL import Image
from playwright.sync_api import expect

from udnet.pages import plots

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on this machine"),
]
PATIENCE = 300_000  # milliseconds for what computes: other tests keep the cores busy


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab on a copy of the repository, where what it saves on its own changes nothing here."""
    folder, token = tmp_path_factory.mktemp("lab"), os.urandom(16).hex()
    root, settings = folder / "udnet", folder / "settings"
    for name in ("notebooks", "data"):
        shutil.copytree(REPO / name, root / name, ignore=shutil.ignore_patterns(".*"))
    news = settings / "JUPYTERLAB_SETTINGS" / "@jupyterlab" / "apputils-extension" / "notification.jupyterlab-settings"
    news.parent.mkdir(parents=True)
    news.write_text(json.dumps({"fetchNews": "false", "checkForUpdates": False}))  # or it asks, over the notebook
    own = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    for name in ("JUPYTER_CONFIG", "JUPYTER_DATA", "JUPYTER_RUNTIME", "JUPYTERLAB_WORKSPACES", "JUPYTERLAB_SETTINGS"):
        own[f"{name}_DIR"] = str(settings / name)
    own["IPYTHONDIR"] = str(settings / "IPYTHON")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [Path(sys.executable).with_name("jupyter"), "lab", "--no-browser", "--allow-root"]
    command += ["--ServerApp.ip=127.0.0.1", f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    # By itself it ends only if this process is killed and cannot end it.
    command += ["--MappingKernelManager.cull_idle_timeout=600", "--ServerApp.shutdown_no_activity_timeout=600"]
    command += [f"--ServerApp.root_dir={root}", f"--IdentityProvider.token={token}", "--expose-app-in-browser"]
    with (folder / "log").open("w") as log:
        server = psutil.Popen(command, cwd=root, env=own, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 120
        while not listening(port):
            assert server.poll() is None and time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/lab/tree/notebooks/{{}}?reset&token={token}"
    finally:
        # Told to end, the server ends its kernels; they have process groups of their own, so whoever stays is named.
        family = [server, *server.children(recursive=True)] if server.is_running() else []
        server.terminate()
        for one in psutil.wait_procs(family, timeout=20)[1]:
            one.kill()


def listening(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def opened(browser, lab):
    """Opens a notebook in JupyterLab and waits for its kernel; to the page's scripts its panel is `shown`."""
    page = browser.new_page(viewport={"width": 1366, "height": 1500})
    page.set_default_timeout(60_000)

    def open(name):
        page.goto(lab.format(name))
        page.wait_for_function("window.shown = window.jupyterapp?.shell.currentWidget, shown?.sessionContext")
        page.wait_for_function(
            "shown.sessionContext.session?.kernel?.status === 'idle' && shown.content.widgets.length"
        )
        return page

    yield open
    page.evaluate("window.shown?.sessionContext.shutdown()")  # what its kernel holds is free for the next
    page.close()


def cells(page):
    """The notebook as it is on the page, cell by cell."""
    found = page.evaluate("shown.content.model.toJSON()")["cells"]
    return [cell | {"source": "".join(cell["source"])} for cell in found]


def edit(page, words, old, new):
    """Make the one code cell with these words the active one, and change its text; where it is."""
    sources = [cell["source"] if cell["cell_type"] == "code" else "" for cell in cells(page)]
    (place,) = [place for place, source in enumerate(sources) if words in source]
    assert old in sources[place]
    page.evaluate("at => { shown.content.activeCellIndex = at }", place)
    text = sources[place].replace(old, new)
    page.evaluate("text => { shown.content.activeCell.model.sharedModel.source = text }", text)
    return place


def set_parameters(page, text):
    """Write at the end of the cell of parameters."""
    (source,) = [cell["source"] for cell in cells(page) if "parameters" in cell["metadata"].get("tags", [])]
    assert all(f"\n{line.partition('=')[0]}=" in source for line in text.splitlines()), "no such parameter"
    edit(page, source, source, f"{source}\n{text}")


def run(page, command="restart-run-all"):
    """Do as the menu does, wait until all is run, and return the cells."""
    page.evaluate(f"() => {{ window.ran = jupyterapp.commands.execute('notebook:{command}') }}")
    if "restart" in command:
        page.click(".jp-Dialog .jp-mod-accept")
    page.evaluate("() => { ran.then(() => { window.ran = true }) }")
    page.wait_for_function("ran === true", timeout=PATIENCE)
    return cells(page)


def outputs(*cells):
    return [output for cell in cells for output in cell.get("outputs", [])]


def pictures(cells):
    """The pictures that cells show, decoded."""
    bundles = [output.get("data", {}) for output in outputs(*cells)]
    shown = [data[kind] for data in bundles for kind in ("image/png", "image/jpeg") if kind in data]
    return [Image.open(io.BytesIO(base64.b64decode(one))).convert("RGB") for one in shown]


def check(page, name):
    """All cells are run, with no error and nothing on stderr, and show as many pictures as are published, all whole."""
    code = [cell for cell in cells(page) if cell["cell_type"] == "code"]
    said = [output for output in outputs(*code) if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert said == []
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    published = json.loads((REPO / "notebooks" / name).read_text())["cells"]
    assert len(pictures(code)) >= max(1, len(pictures(published)))
    for picture in pictures(code):
        assert any(low < high for low, high in picture.getextrema()), "a picture of one colour"
    widths = page.evaluate("[...shown.node.querySelectorAll('.jp-OutputArea img')].map(one => one.naturalWidth)")
    assert len(widths) == len(pictures(code)) and min(widths) > 0


def photograph(page, folder):
    """Screenshots of the notebook from its top to its last cell."""
    folder.mkdir()
    for at in range(50):
        page.evaluate("at => { const box = shown.content.outerNode; box.scrollTop = at * box.clientHeight }", at)
        page.wait_for_timeout(100)  # until it is painted
        page.screenshot(path=folder / f"{at:02}.png")
        if page.evaluate("shown.content.widgets.at(-1).node.getBoundingClientRect().bottom < innerHeight"):
            break


def test_notebook_1_runs(opened, tmp_path):
    page = opened("01-two-models.ipynb")
    set_parameters(page, "live = False")
    run(page)
    photograph(page, tmp_path / "01")
    check(page, "01-two-models.ipynb")


def test_notebook_4_runs_and_its_figures_follow_its_cells(opened, tmp_path):
    page = opened("04-scaling.ipynb")
    set_parameters(page, 'sizes = ["64x64"]')
    before = run(page)
    photograph(page, tmp_path / "04")
    check(page, "04-scaling.ipynb")

    set_parameters(page, 'variants = ["pytorch", "onnx"]\nlive = False')
    two = run(page)
    place = edit(page, '"scaling-memory"', 'set_yscale("log")', 'set_yscale("linear")')
    linear = run(page, "run-cell")
    photograph(page, tmp_path / "04-two")
    assert [output for output in outputs(*two, *linear) if output["output_type"] == "error"] == []

    (many,), (few,), (flat,) = (pictures([cells[place]]) for cells in (before, two, linear))
    assert drawn(many) >= {"onnx-lean", "pytorch", "onnx"}
    assert drawn(few) == drawn(flat) == {"pytorch", "onnx"}
    assert few.tobytes() != flat.tobytes()
    tables = [place for place, cell in enumerate(before) if names(cell) >= {"onnx-lean", "onnx"}]
    assert any(names(two[place]) == {"pytorch", "onnx"} for place in tables), "no table lost a variant"


def drawn(picture):
    """The variants whose colours are in a picture; greys are in every one, at the edges of its text."""
    seen = {"#{:02X}{:02X}{:02X}".format(*colour) for _, colour in picture.getcolors(picture.width * picture.height)}
    greys = {"#" + 3 * f"{grey:02X}" for grey in range(256)}
    return {name for name, (colour, _) in plots.LOOKS.items() if colour in seen - greys}


def names(cell):
    """The variants that the tables of a cell name."""
    tables = [output["data"]["text/html"] for output in outputs(cell) if "text/html" in output.get("data", {})]
    return {name for name in plots.LOOKS if any(f">{name}<" in table for table in tables)}


def test_notebook_8_runs_and_its_controls_answer(opened, tmp_path):
    page = opened("08-explore.ipynb")
    set_parameters(page, "size = 128")
    run(page)
    photograph(page, tmp_path / "08")
    check(page, "08-explore.ipynb")

    enhance, fits = page.locator(".jp-OutputArea:has(.widget-vbox)").all()
    picture = enhance.locator("img")
    first = picture.get_attribute("src")
    enhance.get_by_label("variant").select_option("onnx-lean")
    enhance.get_by_role("button", name="run").click()
    expect(picture).not_to_have_attribute("src", first, timeout=PATIENCE)
    picture.scroll_into_view_if_needed()
    page.screenshot(path=tmp_path / "08-enhanced.png")
    said = [output["data"]["text/plain"] for output in outputs(*cells(page)) if "image/jpeg" in output.get("data", {})]
    assert "onnx-lean: peak" in "".join(said[0])

    enhance.get_by_label("variant").select_option("pytorch")  # which takes seconds
    for _ in range(2):  # in the main thread, and then in another one
        enhance.get_by_role("button", name="run").click()
        enhance.locator("progress").wait_for()
        page.evaluate("shown.sessionContext.session.kernel.interrupt()")
        enhance.get_by_text("stopped").wait_for()

    fits.get_by_label("limit").select_option("128MiB")
    fits.locator("select", has_text="4320x7680").select_option("4320x7680")
    fits.get_by_role("button", name="ask").click()
    line = fits.get_by_text("nothing keeps within 128MiB at 4320x7680")
    line.wait_for()
    assert "\n" not in line.inner_text() and fits.locator("table").count() == 0
    page.screenshot(path=tmp_path / "08-refused.png")
    assert [output for output in outputs(*cells(page)) if output["output_type"] == "error"] == []
