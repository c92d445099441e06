"""One at a time, in the order of asking: a `threading.Lock` may go to the same thread again and again."""

import threading
from collections import deque
from contextlib import contextmanager


class Turns:
    """Whoever has waited longest is next."""

    def __init__(self):
        self._queue, self._changed = deque(), threading.Condition()

    @contextmanager
    def own(self):
        """A block that no other thread runs meanwhile; one that fails, or is interrupted while it waits, gives way."""
        me = object()
        try:
            with self._changed:
                self._queue.append(me)
                self._changed.wait_for(lambda: self._queue[0] is me)
            yield
        finally:
            with self._changed:
                if me in self._queue:
                    self._queue.remove(me)
                self._changed.notify_all()
