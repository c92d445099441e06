"""What a person who waits is told on stderr: lines, and a bar where tqdm is installed, imported for a bar alone."""

import sys
from importlib.util import find_spec


def bar(things=None, shown=True, **about):
    """tqdm's bar over some things, or one to `update`; without tqdm, or where none is to be shown, it shows nothing.

    Its `bar_format` may ask for the things `{a_minute}`.
    """
    if not shown or find_spec("tqdm") is None:
        return _Nothing(things)
    from tqdm import tqdm

    class Bar(tqdm):
        @property
        def format_dict(self):
            said = super().format_dict
            rate = said["rate"] or (said["n"] - said["initial"]) / (said["elapsed"] or 1)
            return said | {"a_minute": f"{60 * rate:,.3g}"}

    return Bar(things, **about)


def say(line):
    """A line that leaves the bar whole, where there is one; it stays one, whatever name of a file is in it."""
    line = str(line).replace("\n", "\\n").replace("\r", "\\r")
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
