"""An app that enhances pictures, with one memory limit for all of its process. The page is `page.py`, this its server.

    streamlit run examples/app.py -- --memory-limit 512MiB

Streamlit alone keeps every upload and every download in memory, for as long as their visitors are there. Here both
stay on the disk, so that the process holds the network, a few hundred kilobytes a visitor, and the one picture that is
being enhanced. What that may take is what the rest leaves of the limit when its turn comes.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
import uuid
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse
from starlette.routing import Route
from streamlit import runtime

from udnet import Error
from udnet.system import machine, memory
from udnet.system.turns import Turns
from udnet.tiled import plans, scratch

LOADED = 156 * memory.MIB  # with the network, its first run and `VISITORS`, before a picture (measured: 152)
LEAST = 256, 256  # of a picture that the limit has to have room for
LEFT = 600  # seconds after which an upload that no page has taken is removed
VISITORS = 24 * memory.MIB  # for those who come while a picture is enhanced: their pages, uploads on their way to disk


def limit(arguments):
    """The memory limit in bytes, as the command line gives it."""
    parser = argparse.ArgumentParser("streamlit run examples/app.py --", description="UDnet in a browser")
    parser.add_argument("--memory-limit", default="512MiB", help="of the whole process (%(default)s)")
    chosen = parser.parse_args(arguments).memory_limit
    if scratch.find() is None:  # or every upload would stay in memory after all
        parser.error(f"{tempfile.gettempdir()} is no folder on a disk that can be written: set TMPDIR to one")
    try:
        size = memory.limit_bytes(chosen)
    except Error as error:
        parser.error(f"--memory-limit: {error}")
    least = plans.limit_for(LOADED + plans.least(*LEAST, machine.threads(None)))
    if size < least:
        picture = "{}x{}".format(*LEAST)
        parser.error(f"--memory-limit: {chosen} is too little for a picture of {picture}: give {memory.mib(least)}")
    return size


LIMIT = limit(sys.argv[1:])
memory.return_freed_memory()  # what a picture or an upload took goes back at once, whichever thread had it
folder = tempfile.TemporaryDirectory(prefix="udnet-app-")
FOLDER = Path(folder.name)


@asynccontextmanager
async def lifespan(app):
    """While the server runs: a signal that ends it would leave the folder behind."""
    looking = asyncio.create_task(look())
    with folder:
        yield
    looking.cancel()


async def look():
    """Remove, again and again, what is left of visitors who are gone.

    Streamlit keeps a session that has lost its page for 120 s, or as `--server.disconnectedSessionTTL` says: a page
    whose connection broke finds its picture again. What it forgets then would stay until another page closes.
    """
    while True:
        await asyncio.sleep(max(1, st.get_option("server.disconnectedSessionTTL") / 2))
        remove_left()


def remove_left():
    """Remove the jobs of sessions that Streamlit has forgotten, and uploads that no page has taken in time."""
    sessions, media = runtime.get_instance()._session_mgr, runtime.get_instance().media_file_mgr
    for job in JOBS.copy().values():
        if sessions.get_session_info(job.session) is None:  # no public name tells of those without a page
            job.remove()
            media.clear_session_refs(job.session)  # the two pictures that its page showed are in memory
            media.remove_orphaned_files()
    for path in FOLDER.glob("*.upload"):
        with suppress(FileNotFoundError):  # a page has just taken it
            if path.stat().st_mtime < time.time() - LEFT:
                path.unlink()


class UploadsOnDisk:
    """Between a visitor and Streamlit: an upload goes to a file in `FOLDER`, and its name to Streamlit in its place."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["method"] != "PUT":  # Streamlit has no other PUT
            return await self.app(scope, receive, send)
        request, most = Request(scope, receive), st.get_option("server.maxUploadSize") * memory.MIB
        if int(request.headers.get("content-length", most + 1)) > most:
            return await PlainTextResponse("File too large", 413)(scope, receive, send)
        path = FOLDER / f"{uuid.uuid4()}.upload"
        async with request.form() as form:  # a large one is on the disk already, in a file without a name
            (upload,) = form.values()
            with path.open("wb") as file:
                await asyncio.to_thread(shutil.copyfileobj, upload.file, file)
        about = f'Content-Disposition: form-data; name="file"; filename="{quote(upload.filename)}"'
        body = f"--{path.stem}\r\n{about}\r\n\r\n{path.name}\r\n--{path.stem}--\r\n".encode()
        headers = [pair for pair in scope["headers"] if pair[0] not in (b"content-length", b"content-type")]
        headers += [(b"content-type", f"multipart/form-data; boundary={path.stem}".encode())]

        async def given():
            return {"type": "http.request", "body": body, "more_body": False}

        await self.app(scope | {"headers": headers}, given, send)


class Job:
    """An upload and what comes of it, in a folder of its own until it is removed; a session has one at the most.

    `done`: whether it is enhanced; `refused`: why it never will be; `said`: what the page tells of it.
    """

    def __init__(self, session, id, name, upload):
        """`session`, `id`: Streamlit's, of the upload; `name`: the visitor's; `upload`: of its file in `FOLDER`."""
        self.session, self.id, self.name = session, id, Path(name).name
        self.done, self.refused, self.said = False, "", ""
        self.folder = tempfile.TemporaryDirectory(dir=FOLDER)
        suffix = Path(name).suffix
        names = f"picture{suffix}", f"enhanced{suffix}", "before.webp", "after.webp"
        self.source, self.out, self.before, self.after = (Path(self.folder.name, one) for one in names)
        (FOLDER / Path(upload).name).rename(self.source)
        JOBS[session] = self

    def remove(self):
        """Nothing of it stays on the disk."""
        JOBS.pop(self.session, None)
        self.folder.cleanup()


JOBS = {}  # by the session whose it is


TURNS = Turns()


async def enhanced(request):
    """An enhanced picture, piece by piece from the disk: a download takes no memory."""
    id = request.path_params["id"]  # which its visitor alone knows
    job = next((one for one in JOBS.copy().values() if one.id == id and one.done), None)
    if job is None:
        return PlainTextResponse("This picture is no longer here: upload it again", 404)
    return FileResponse(job.out, filename=f"{Path(job.name).stem}-enhanced{job.out.suffix}")


app = st.App(
    "page.py",
    lifespan=lifespan,
    routes=[Route("/enhanced/{id}", enhanced)],
    middleware=[Middleware(UploadsOnDisk)],
)
