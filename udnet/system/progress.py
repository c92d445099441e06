"""What a person who waits is told on stderr: lines, and a bar where tqdm is installed, imported for a bar alone."""

import sys
from importlib.util import find_spec


def bar(things=None, shown=True, **about):
    """tqdm's bar over some things, or one to `update`; without tqdm, or where none is to be shown, it shows nothing."""
    if not shown or find_spec("tqdm") is None:
        return _Nothing(things)
    from tqdm import tqdm

    return tqdm(things, **about)


def say(line):
    """A line that leaves the bar whole, where there is one."""
    tqdm = sys.modules.get("tqdm")
    print(line, file=sys.stderr) if tqdm is None else tqdm.tqdm.write(line, file=sys.stderr)


class _Nothing:
    """In place of a bar."""

    def __init__(self, things):
        self.things = things

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def __iter__(self):
        return iter(self.things)

    def update(self, count=1):
        """Nothing to show it on."""
