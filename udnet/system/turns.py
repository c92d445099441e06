"""One at a time, in the order of asking: a `threading.Lock` may go to the same thread again and again."""

import threading
from collections import deque
from contextlib import contextmanager

TELL_SECONDS = 0.2


class Turns:
    """Whoever has waited longest is next."""

    def __init__(self):
        self._queue, self._changed = deque(), threading.Condition()

    @contextmanager
    def own(self, tell=None):
        """A block that no other thread runs meanwhile; one that fails, or is interrupted while it waits, gives way.

        `tell(count)` is called as long as it waits, several times a second, with how many are before it.
        """
        me = object()
        try:
            with self._changed:
                self._queue.append(me)
            while before := self._before(me):
                if tell:
                    tell(before)
                with self._changed:
                    self._changed.wait_for(lambda: self._queue[0] is me, TELL_SECONDS if tell else None)
            yield
        finally:
            with self._changed:
                if me in self._queue:
                    self._queue.remove(me)
                self._changed.notify_all()

    def _before(self, me):
        with self._changed:
            return self._queue.index(me)
