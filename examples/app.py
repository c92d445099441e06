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
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote
from weakref import WeakValueDictionary

import streamlit as st
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse
from starlette.routing import Route

from udnet import Error
from udnet.system import memory
from udnet.system.turns import Turns
from udnet.tiled import scratch

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
        return memory.limit_bytes(chosen)
    except Error as error:
        parser.error(f"--memory-limit: {error}")


LIMIT = limit(sys.argv[1:])
memory.return_freed_memory()  # what a picture or an upload took goes back at once, whichever thread had it
folder = tempfile.TemporaryDirectory(prefix="udnet-app-")
FOLDER = Path(folder.name)


@asynccontextmanager
async def lifespan(app):
    """While the server runs: a signal that ends it would leave the folder behind."""
    with folder:
        yield


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
        for path in FOLDER.glob("*.upload"):
            if path.stat().st_mtime < time.time() - LEFT:
                path.unlink()
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
    """An upload and what comes of it, in a folder that is removed once its page, that is `session_state`, drops it.

    `done`: whether it is enhanced; `refused`: why it never will be; `said`: what the page tells of it.
    """

    def __init__(self, id, name, upload):
        """`id`: Streamlit's of the upload; `name`: the visitor's; `upload`: of its file in `FOLDER`."""
        self.id, self.name, self.done, self.refused, self.said = id, Path(name).name, False, "", ""
        self.folder = tempfile.TemporaryDirectory(dir=FOLDER)
        suffix = Path(name).suffix
        names = f"picture{suffix}", f"enhanced{suffix}", "before.webp", "after.webp"
        self.source, self.out, self.before, self.after = (Path(self.folder.name, one) for one in names)
        (FOLDER / Path(upload).name).rename(self.source)
        JOBS[id] = self


JOBS = WeakValueDictionary()  # by the id of the upload, which its visitor alone knows


TURNS = Turns()


async def enhanced(request):
    """An enhanced picture, piece by piece from the disk: a download takes no memory."""
    job = JOBS.get(request.path_params["id"])
    if job is None or not job.done:
        return PlainTextResponse("This picture is no longer here: upload it again", 404)
    return FileResponse(job.out, filename=f"{Path(job.name).stem}-enhanced{job.out.suffix}")


app = st.App(
    "page.py",
    lifespan=lifespan,
    routes=[Route("/enhanced/{id}", enhanced)],
    middleware=[Middleware(UploadsOnDisk)],
)
