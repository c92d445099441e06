"""Any variant under another allocator: `pytorch+jemalloc` is the variant `pytorch` with jemalloc preloaded.

The library is preloaded into the trial's process alone. A library that is not installed leaves a row that says so.
"""

import sys
from dataclasses import replace
from pathlib import Path

from udnet import Error

LIBRARIES = {  # the file to preload, and the Debian package that has it
    "jemalloc": ("libjemalloc.so.2", "libjemalloc2"),
    "tcmalloc": ("libtcmalloc_minimal.so.4", "libtcmalloc-minimal4"),
    "mimalloc": ("libmimalloc.so.2", "libmimalloc2.0"),
}
SETTINGS = {  # glibc's own, by its tunables
    "hugepages": {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
}
NAMES = (*LIBRARIES, *SETTINGS)
FOLDERS = ("/usr/lib", "/usr/local/lib")


def words(name):
    """An allocator as a sentence says it after "under"; the empty name is what the system has."""
    return {"": "the system's allocator", "hugepages": "glibc with huge pages"}.get(name, name)


def under(variant, allocator):
    """The same variant with another allocator; its `missing` says what to install where that is not there."""
    name = f"{variant.name}+{allocator}"
    summary = f"{variant.summary}; allocator: {allocator}"
    if allocator in SETTINGS:
        return replace(variant, name=name, summary=summary, environment={**variant.environment, **SETTINGS[allocator]})
    if allocator not in LIBRARIES:
        raise Error(f"no allocator {allocator!r}: choose from {', '.join(NAMES)}")
    file, package = LIBRARIES[allocator]
    path = _find(file)
    if path is None:
        return replace(variant, name=name, summary=summary, missing=f"no {file}: install Debian's {package}")
    return replace(variant, name=name, summary=summary, environment={**variant.environment, "LD_PRELOAD": str(path)})


def _find(file):
    """The library's path, or None; a version after the name counts too."""
    if sys.platform != "linux":
        return None
    found = [path for folder in FOLDERS for pattern in (file, f"*/{file}") for path in Path(folder).glob(f"{pattern}*")]
    return min(found, default=None)
