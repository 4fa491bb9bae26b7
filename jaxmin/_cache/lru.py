"""A cache of the values used last, for several threads."""

import collections
import threading


class LRU:
    """``size`` values at most, each under a hashable key."""

    def __init__(self, size):
        self._size, self._lock = size, threading.RLock()
        self._values = collections.OrderedDict()  # the one used last at the end

    def __len__(self):
        return len(self._values)

    def get(self, key):
        """The value, or None."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key, value):
        """The value that was put there first: of two threads that built it both use one."""
        with self._lock:
            value = self._values.setdefault(key, value)
            self._values.move_to_end(key)
            excess = len(self._values) - self._size
        self.drop(excess)
        return value

    def drop(self, count):
        """Let go of so many, those used longest ago."""
        dropped = []  # they die outside of the lock: what they own may be of this cache
        with self._lock:
            for _ in range(min(count, len(self._values))):
                dropped.append(self._values.popitem(last=False))
