"""What a visitor sees: a photograph, how long it will take, its progress, and before and after side by side."""

import gc
import time
from dataclasses import replace
from urllib.parse import unquote

import streamlit as st
from app import JOBS, LIMIT, TURNS, VISITORS, Job
from PIL import Image
from streamlit.runtime.scriptrunner import get_script_run_ctx

import udnet
from udnet.pictures import folders, photographs
from udnet.system import memory
from udnet.system.progress import say
from udnet.tiled.schedule import OverLimit

SHOWN = 1024  # pixels of a side, at the most, of what goes to the page


@st.cache_resource(show_spinner="Loading the network")  # once a process, for all visitors
def enhancer():
    return udnet.load(memory_limit=LIMIT)


def small(picture, path):
    """Write a picture as the page shows it."""
    factor = -(-max(picture.pixels.shape) // SHOWN)
    image = Image.fromarray(picture.pixels).reduce(factor)
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(picture.alpha).reduce(factor))
    image.save(path, "WEBP", quality=90)


def run(job, slot):
    """Enhance the picture of a job in its turn. Where its visitor leaves, Streamlit raises in `slot`: that ends it."""
    gc.collect()  # pictures that were given up may lie in circles
    network, start, about, read = enhancer().network, time.monotonic(), "", False
    held = enhancer().held + VISITORS

    def begin(source, header):
        nonlocal about
        size = f"{header.height}x{header.width}"
        try:
            plan = network.plan_for(replace(header, beside=header.beside + held))
        except OverLimit as error:
            needs = f"{size} needs {memory.mib(error.least)} of memory, and this app has {memory.mib(LIMIT)}"
            raise udnet.Error(f"{needs}: try a smaller picture") from error
        peak = memory.mib(network.floor + held + plan.bytes + header.beside)
        seconds = f"about {max(1, network.seconds(plan)):,.0f} s where nothing else runs"
        about = f"{size} takes {seconds}, and the app {peak} meanwhile"

    def tell(done):
        left = (time.monotonic() - start) * (1 - done) / done
        slot.progress(done, f"{about}: {left:,.0f} s left")

    def enhance(picture):
        nonlocal read
        read = True
        small(picture, job.before)
        slot.progress(0.0, about)
        picture = enhancer()(picture, held, tell)
        small(picture, job.after)
        return picture

    slot.progress(0.0, "Reading the picture")
    try:
        lost = folders.enhance_file(enhance, job.source, job.out, begin)
    except udnet.Error as error:
        job.refused = str(error).replace(f"{job.source}: ", "").replace(f"{job.out}: ", "")
        if read:  # nothing is wrong with the picture: what is, is for whoever runs the app
            say(f"udnet: {error}")
            job.refused = "cannot be enhanced at the moment: try again later"
    else:
        size, took = about.partition(" ")[0], time.monotonic() - start
        job.done, job.said = True, f"{size} in {took:,.0f} s"
        if lost:
            job.said += f", without {lost} of the camera's notes, for which {job.out.suffix} has no room"
    job.source.unlink()


st.set_option("client.toolbarMode", "minimal")
st.set_option("client.showErrorDetails", "none")  # a fault of the app is for its log
st.set_page_config("UDnet", ":material/scuba_diving:", layout="wide")
st.title("Underwater pictures, enhanced")
upload = st.file_uploader("A photograph", [suffix.lstrip(".") for suffix in photographs.KINDS])
session = get_script_run_ctx().session_id
job = JOBS.get(session)
if job and (upload is None or job.id != upload.file_id):
    job.remove()
    job = None
if upload is None:
    st.stop()
if job is None:
    job = Job(session, upload.file_id, unquote(upload.name), upload.read().decode())
slot = st.empty()
if not job.done and not job.refused:
    with TURNS.own(lambda count: slot.info(f"One picture is enhanced at a time: {count} before yours")):
        run(job, slot)
slot.empty()
if job.refused:
    st.error(f"{job.name}: {job.refused}")
    st.stop()
for column, name, path in zip(st.columns(2), ("before", "after"), (job.before, job.after), strict=True):
    column.image(path, name, width="stretch")
st.link_button("Download", f"enhanced/{job.id}", type="primary", icon=":material/download:")
st.caption(f"{job.said} · {enhancer().weights.caption}")
