"""The app of `examples/` as its visitors have it: in a browser, its whole process under the kernel's own limit."""

import asyncio
import importlib
import io
import os
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from conftest import BROWSER, REPO, soon
from PIL import Image
from playwright.sync_api import expect

import udnet
from udnet.pictures import folders, photographs, scenes
from udnet.system import guard, memory
from udnet.system.memory import MIB
from udnet.tiled.schedule import OverLimit

streamlit = pytest.importorskip("streamlit", reason="no streamlit: make extras")
LIMIT = 512 * MIB
PATIENCE = 300_000  # milliseconds for what computes: other tests keep the cores busy


# --- its parts ---


@pytest.fixture(scope="module")
def app():
    """The server's module, as `streamlit run` imports it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["app.py", "--memory-limit", "300MiB"])
        patch.setattr(memory, "return_freed_memory", lambda: None)  # which is for good, and this process is shared
        patch.syspath_prepend(str(REPO / "examples"))
        app = importlib.import_module("app")
        yield app
        sys.modules.pop("app")
        app.folder.cleanup()


def test_the_limit_is_that_of_the_command_line(app, capsys):
    assert app.LIMIT == 300 * MIB and app.limit([]) == LIMIT
    for wrong in ("much", "1KiB"):
        with pytest.raises(SystemExit):
            app.limit(["--memory-limit", wrong])
        assert capsys.readouterr().err.splitlines()[-1].startswith("streamlit run examples/app.py --: error: --memory-")


def test_a_limit_below_what_a_small_picture_takes_is_refused_with_the_least_that_is_not(app, capsys):
    with pytest.raises(SystemExit):
        app.limit(["--memory-limit", "120MiB"])
    (least,) = re.findall(r"120MiB is too little for a picture of 256x256: give ([\d]+ MiB)$", capsys.readouterr().err)
    assert app.limit(["--memory-limit", least]) == int(least.split()[0]) * MIB


def test_a_folder_in_memory_is_refused(app, capsys, monkeypatch):
    monkeypatch.setattr(app.scratch, "find", lambda: None)
    with pytest.raises(SystemExit):
        app.limit([])
    assert "set TMPDIR" in capsys.readouterr().err


def sent(app, file, headers=()):
    """What a PUT of a file gives Streamlit: its scope and body, and what was answered by the way."""
    edge = b"edge"
    about = b'Content-Disposition: form-data; name="file"; filename="a \xc3\xa9.png"\r\nContent-Type: image/png'
    body = b"--%b\r\n%b\r\n\r\n%b\r\n--%b--\r\n" % (edge, about, file, edge)
    pieces = [body[start : start + 65536] for start in range(0, len(body), 65536)]
    given, answers = [], []

    async def receive():
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(message):
        answers.append(message)

    async def streamlit(scope, receive, send):
        given.append((dict(scope["headers"]), (await receive())["body"]))

    length = headers or [(b"content-length", str(len(body)).encode())]
    kind = [(b"content-type", b"multipart/form-data; boundary=edge"), (b"cookie", b"theirs")]
    scope = {"type": "http", "method": "PUT", "path": "/", "query_string": b"", "headers": [*length, *kind]}
    with ThreadPoolExecutor() as other:  # this thread may hold the loop of a browser
        other.submit(asyncio.run, app.UploadsOnDisk(streamlit)(scope, receive, send)).result()
    return given, answers


def test_an_upload_goes_to_the_disk_and_its_name_to_streamlit(app):
    file = os.urandom(3 * MIB)
    ((headers, body),), answers = sent(app, file)
    assert answers == [] and len(body) < 500 and headers[b"cookie"] == b"theirs" and b"content-length" not in headers
    assert b'filename="a%20%C3%A9.png"' in body
    (name,) = re.findall(rb"[\w-]+\.upload", body)
    job = app.Job("a session", "an id", "a é.png", name.decode())
    assert job.source.read_bytes() == file and list(app.FOLDER.glob("*.upload")) == []
    job.remove()


@pytest.mark.parametrize("headers", [[(b"content-length", b"%d" % (1 << 40))], [(b"transfer-encoding", b"chunked")]])
def test_an_upload_that_is_too_large_is_not_even_read(app, headers):
    given, answers = sent(app, b"", headers)
    assert given == [] and answers[0]["status"] == 413 and list(app.FOLDER.glob("*.upload")) == []


class Sessions(set):
    """Those that Streamlit knows, by their ids, in place of its two managers."""

    def get_session_info(self, id):
        return id if id in self else None

    def clear_session_refs(self, id):
        self.cleared = id

    def remove_orphaned_files(self):
        assert self.cleared not in self


def test_what_no_living_session_has_is_removed(app, monkeypatch):
    """Without another visitor who comes, uploads or leaves."""
    sessions = Sessions({"here"})
    monkeypatch.setattr(
        app.runtime, "get_instance", lambda: SimpleNamespace(_session_mgr=sessions, media_file_mgr=sessions)
    )
    for name in ("here", "gone", "left", "new"):
        (app.FOLDER / f"{name}.upload").write_bytes(b"...")
    here, gone = (app.Job(session, "an id", "../reef.JPG", f"{session}.upload") for session in ("here", "gone"))
    assert gone.out.parent.parent == app.FOLDER and gone.out.suffix == ".JPG"
    os.utime(app.FOLDER / "left.upload", (0, 0))
    app.remove_left()
    assert here.source.exists() and not gone.source.parent.exists() and sessions.cleared == "gone"
    assert list(app.JOBS.values()) == [here] and [path.name for path in app.FOLDER.glob("*.upload")] == ["new.upload"]
    here.remove()
    (app.FOLDER / "new.upload").unlink()
    assert app.JOBS == {} and list(app.FOLDER.iterdir()) == []


# --- what its page says ---


class Fake:
    """In place of an enhancer, its network, a plan and its weights; `refuses`, `fails`: errors, before and within."""

    floor = held = bytes = 0
    caption = "no weights"

    def __init__(self, refuses=None, fails=None):
        self.refuses, self.fails, self.network, self.weights = refuses, fails, self, self

    def plan_for(self, header):
        if self.refuses:
            raise self.refuses
        return self

    def seconds(self, plan):
        return 1

    def __call__(self, picture, held, tell):
        if self.fails:
            raise self.fails
        return picture


@pytest.fixture
def page(app, monkeypatch):
    """The page with an enhancer of one's own, and a picture of 40x30 on it, or what is given in its place."""
    from streamlit.testing.v1 import AppTest

    def page(enhancer, name="reef.png", data=None):
        monkeypatch.setattr(udnet, "load", lambda memory_limit: enhancer)
        shown = AppTest.from_file(str(REPO / "examples" / "page.py"), default_timeout=60).run()
        add(shown, name, data)
        return shown

    def add(page, name, data):
        path = app.FOLDER / "1.upload"
        Image.new("RGB", (30, 40)).save(path, "PNG") if data is None else path.write_bytes(data)
        page.file_uploader[0].upload(name, path.name.encode()).run()
        assert not page.exception

    page.add = add
    streamlit.cache_resource.clear()
    yield page
    streamlit.cache_resource.clear()
    for job in app.JOBS.copy().values():
        job.remove()


def said(page):
    (alert,) = page.error
    return alert.value


def test_a_picture_beyond_the_limit_is_told_to_a_visitor_with_what_it_needs(page):
    shown = page(Fake(refuses=OverLimit(849 * MIB)))
    needs = "40x30 needs 849 MiB of memory, and this app has 300 MiB: try a smaller picture"
    assert said(shown) == f"reef.png: cannot be enhanced: {needs}"


def test_what_is_wrong_with_a_picture_is_told_by_its_own_name(page, app):
    assert said(page(Fake(), "words.jpg", b"no picture")).startswith("words.jpg: empty, cut short, or not a JPEG")
    wide = io.BytesIO()
    Image.new("RGB", (20_000, 20)).save(wide, "PNG")
    text = said(page(Fake(), "wide.webp", wide.getvalue()))
    assert text.startswith("wide.webp: WEBP holds sides of 16,383 pixels") and str(app.FOLDER) not in text


@pytest.mark.parametrize("fails", [MemoryError(), udnet.Error("/tmp: no scratch file (disk full): free some space")])
def test_what_is_wrong_with_the_server_is_told_to_who_runs_it(page, capsys, fails):
    assert said(page(Fake(fails=fails))) == "reef.png: cannot be enhanced at the moment: try again later"
    assert (str(fails) or "not enough memory for 40x30") in capsys.readouterr().err


def test_another_picture_and_none_remove_the_one_before(page, app):
    shown = page(Fake())
    (first,) = app.JOBS.values()
    assert first.done and first.out.exists()
    page.add(shown, "words.jpg", b"no picture")
    (second,) = app.JOBS.values()
    assert second.refused and not first.out.parent.exists()
    shown.file_uploader[0].clear().run()
    assert app.JOBS == {} and list(app.FOLDER.iterdir()) == []


# --- all of it ---


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Photographs by name, drawn, and one of noise, which is the largest as a file."""
    folder = tmp_path_factory.mktemp("uploads")
    reef = Image.fromarray(scenes.draw(3, 540, 960).picture)
    for name, height, width in (("small", 325, 500), ("middle", 1080, 1920), ("large", 2160, 3840)):
        reef.resize((width, height), Image.Resampling.BICUBIC).save(folder / f"{name}.jpg", quality=92)
    noise = np.random.default_rng(0).integers(0, 256, (2160, 3840, 3), np.uint8)
    Image.fromarray(noise).save(folder / "noise.png", compress_level=1)
    (folder / "words.jpg").write_text("no picture")
    for place in range(10):
        reef.resize((400 + place, 300)).save(folder / f"{place}.png")
        with (folder / f"{place}.png").open("ab") as file:
            file.write(bytes(5 * MIB))  # much to hold, and little to enhance
    return folder


class Server:
    """The app in a control group of its limit."""

    def __init__(self, group, folder, *more):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.group, self.url, self.folder = group, f"http://127.0.0.1:{self.port}", folder
        options = ["--server.headless=true", f"--server.port={self.port}", "--server.address=127.0.0.1"]
        command = [sys.executable, "-m", "streamlit", "run", str(REPO / "examples" / "app.py"), *options]
        command += ["--browser.gatherUsageStats=false", *more, "--", "--memory-limit", str(LIMIT)]
        with (folder / "log").open("w") as log:
            own = os.environ | {"TMPDIR": str(folder)}
            self.process = subprocess.Popen(group.command(command), cwd=folder, env=own, stdout=log, stderr=log)
        assert soon(self.answers, 120), self.log()

    def answers(self):
        assert self.process.poll() is None, self.log()
        try:
            return urllib.request.urlopen(f"{self.url}/_stcore/health").status == 200
        except urllib.error.URLError:
            return False

    def log(self):
        return (self.folder / "log").read_text()

    def peak(self, of="VmHWM"):
        """The process's peak since it was last asked, in bytes."""
        about = Path(f"/proc/{self.process.pid}")
        size = int(re.search(rf"{of}:\s+(\d+)", (about / "status").read_text())[1]) * 1024
        (about / "clear_refs").write_text("5")
        return size

    def jobs(self):
        """The folders of uploads, one a visitor."""
        return list(self.folder.glob("udnet-app-*/*"))

    def is_left_alone(self):
        """Whether nothing is left of earlier visitors, in good time."""
        return soon(lambda: not self.jobs(), 60)

    def check(self):
        assert self.process.poll() is None and not self.group.killed, self.log()
        assert "Traceback" not in self.log()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if BROWSER is None:
        pytest.skip("no chromium, chromium-browser or google-chrome on this machine")
    group = guard.ControlGroup.make(LIMIT)
    if group is None:
        pytest.skip("this process may not make a memory control group")
    folder = tmp_path_factory.mktemp("server")
    try:
        server = Server(group, folder, "--server.disconnectedSessionTTL=5")  # seconds, for who are gone to be forgotten
        yield server
        server.process.terminate()
        server.process.wait(30)
        assert list(folder.glob("udnet-app-*")) == [], "pictures are left behind"
    finally:
        group.close()


@pytest.fixture
def visit(browser, server):
    """Opens the page as a new visitor, and closes all of them; afterwards the server is still well."""
    pages = []

    def visit():
        pages.append(browser.new_page(viewport={"width": 1280, "height": 900}))
        pages[-1].set_default_timeout(PATIENCE)
        pages[-1].goto(server.url)
        return pages[-1]

    yield visit
    for page in pages:
        page.close()
    server.check()


def upload(page, path):
    page.locator("input[type=file]").set_input_files(path)


def answer(page):
    """The file that a visitor downloads, as its name and bytes, once it is there."""
    link = page.get_by_role("link", name="Download")
    link.wait_for()
    with page.expect_download() as got:
        link.click()
    return got.value.suggested_filename, Path(got.value.path()).read_bytes()


def same(answered, expected):
    """Whether a picture is what the package gives: by another plan a value here and there is rounded the other way.

    In a JPEG that moves its block of 8x8 by a few levels.
    """
    pixels = np.asarray(Image.open(io.BytesIO(answered)))
    assert pixels.shape == expected.shape
    apart = np.abs(pixels.astype(int) - expected)
    return apart.max() <= 8 and (apart > 0).mean() < 2e-3


@pytest.fixture(scope="module")
def enhanced(files, tmp_path_factory):
    """The pixels of a file that the package itself enhances and writes, with what the app has left for a picture."""
    network = udnet.load(memory_limit=memory.resident() + 400 * MIB)  # whatever these tests hold
    folder, known = tmp_path_factory.mktemp("enhanced"), {}

    def enhanced(name):
        if name not in known:
            folders.enhance_file(network, files / name, folder / name)
            known[name] = np.asarray(Image.open(folder / name))
        return known[name]

    return enhanced


@pytest.mark.slow
@pytest.mark.parametrize("name", ["small.jpg", "middle.jpg", "large.jpg", "noise.png"])
def test_a_picture_is_enhanced_as_by_the_package(visit, server, files, enhanced, tmp_path, name):
    page = visit()
    upload(page, files / name)
    if name != "small.jpg":  # which may be done before it is seen
        height, width = enhanced_size(files / name)
        page.get_by_text(re.compile(rf"{height}x{width} takes about \d+ s .*, and the app [\d,]+ MiB")).wait_for()
    given, bytes = answer(page)
    assert given == f"{Path(name).stem}-enhanced{Path(name).suffix}"
    assert same(bytes, enhanced(name))
    page.screenshot(path=tmp_path / "page.png")
    for picture in page.locator("[data-testid=stImage] img").all():
        kept = page.request.get(picture.evaluate("one => one.src")).body()
        assert max(Image.open(io.BytesIO(kept)).size) <= 1024, "as the page shows it"
    page.reload()  # a new visitor, to Streamlit
    page.get_by_text("A photograph").wait_for()
    assert page.get_by_role("link", name="Download").count() == 0
    assert server.peak() <= LIMIT


def enhanced_size(path):
    header = photographs.header(path, path.with_name("out.png"))
    return header.height, header.width


@pytest.mark.slow
def test_what_is_no_picture_is_one_line_and_the_next_one_is_enhanced(visit, files, enhanced):
    page = visit()
    upload(page, files / "words.jpg")
    said = page.locator("[data-testid=stAlert]")
    said.wait_for()
    assert said.inner_text().startswith("words.jpg: empty, cut short, or not a JPEG") and "\n" not in said.inner_text()
    page.get_by_role("button", name="Remove").click()
    expect(said).to_have_count(0)
    upload(page, files / "small.jpg")
    assert same(answer(page)[1], enhanced("small.jpg"))


@pytest.mark.slow
def test_a_picture_beyond_the_limit_is_one_line_with_what_it_needs(visit, tmp_path):
    Image.new("RGB", (8000, 6000)).save(tmp_path / "huge.png")
    page = visit()
    upload(page, tmp_path / "huge.png")
    said = page.locator("[data-testid=stAlert]", has_text="6000x8000 needs")
    said.wait_for()
    (least,) = re.findall(r"needs ([\d,]+) MiB of memory, and this app has 512 MiB: try a smaller", said.inner_text())
    assert int(least.replace(",", "")) * MIB > LIMIT


@pytest.mark.slow
def test_two_at_once_take_turns(visit, server, files, enhanced):
    first, second = visit(), visit()
    upload(first, files / "middle.jpg")
    first.get_by_text("1080x1920 takes about").wait_for()
    upload(second, files / "small.jpg")
    second.get_by_text("One picture is enhanced at a time: 1 before yours").wait_for()
    assert same(answer(second)[1], enhanced("small.jpg"))
    assert same(answer(first)[1], enhanced("middle.jpg"))
    assert server.peak() <= LIMIT


@pytest.mark.slow
def test_what_nobody_waits_for_is_given_up(visit, server, files, enhanced):
    assert server.is_left_alone()
    gone, then = visit(), visit()
    upload(gone, files / "large.jpg")
    gone.get_by_text("2160x3840 takes about").wait_for()
    (half_done,) = server.folder.glob("udnet-app-*/*/picture.jpg")
    gone.close()
    upload(then, files / "middle.jpg")
    then.get_by_text("1080x1920 takes about").wait_for()
    assert not half_done.with_name("enhanced.jpg").exists()
    assert same(answer(then)[1], enhanced("middle.jpg"))
    assert server.peak() <= LIMIT


@pytest.mark.slow
def test_nothing_is_left_of_those_who_are_gone(visit, server, files):
    """One whose picture is done, and one whose picture is not; nobody else comes or goes."""
    assert server.is_left_alone()
    done, half_done = visit(), visit()
    upload(done, files / "small.jpg")
    link = done.get_by_role("link", name="Download")
    link.wait_for()
    links = [link.evaluate("one => one.href")]
    links += [one.evaluate("one => one.src") for one in done.locator("[data-testid=stImage] img").all()]
    upload(half_done, files / "large.jpg")
    half_done.get_by_text("2160x3840 takes about").wait_for()
    assert [status(one) for one in links] == [200] * 3 and len(server.jobs()) == 2
    done.close()
    half_done.close()
    assert server.is_left_alone()
    assert [status(one) for one in links] == [404] * 3


def status(url):
    try:
        return urllib.request.urlopen(url).status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.slow
@pytest.mark.parametrize("sessions", [1, 10])
def test_many_pictures_take_no_more_than_few(visit, server, files, sessions):
    """Ten uploads of one visitor, or of ten who all stay."""
    peaks, held, page = [], [], visit()
    for place in range(10):
        upload(page, files / f"{place}.png")
        assert answer(page)[0] == f"{place}-enhanced.png"
        peaks.append(server.peak())
        held.append(server.peak("VmRSS"))
        if sessions == 1:
            page.get_by_role("button", name="Remove").click()
            expect(page.get_by_role("link", name="Download")).to_have_count(0)
        else:
            page = visit()
    assert max(peaks[5:]) < max(peaks[:5]) + 16 * MIB, "a visitor's page takes some hundred kilobytes"
    assert held[-1] < held[1] + 16 * MIB
