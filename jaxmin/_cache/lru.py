"""A bounded cache that lets go of what it can no longer give, for several threads."""

import collections
import threading
import weakref

from jaxmin._cache.purity import WeaklySame


class Kept:
    """The values used last: ``size`` slots, in each the last few (``versions``) of what it has seen.

    A slot says what is asked for, ``seen`` what the value was made from: a slot that sees new arrays at
    every call keeps the last, not all of them. A slot goes when one of its owners does.
    """

    def __init__(self, size, versions=1):
        self._size, self._versions = size, versions
        self._slots = collections.OrderedDict()  # slot -> {seen: value}, the one used last at the end
        self._owned = {}  # owner, held weakly -> (its finalizer, the slots that go with it)
        self._gone: collections.deque = collections.deque()  # owners that died
        self._lock = threading.Lock()

    def __len__(self):
        return sum(map(len, self._slots.values()))

    def get(self, slot, seen):
        """The value, or None."""
        value = None
        with self._lock:
            known = self._slots.get(slot, {})
            if seen in known:
                self._slots.move_to_end(slot)
                known[seen] = value = known.pop(seen)
        self._bury()
        return value

    def put(self, slot, seen, value, owners=()):
        """Keep a value until something newer takes its place, or one of the owners dies."""
        dropped = []  # what is let go of dies outside of the lock: it may own slots itself
        with self._lock:
            known = self._slots.setdefault(slot, {})
            known[seen] = value
            self._slots.move_to_end(slot)
            while len(known) > self._versions:
                dropped.append(known.pop(next(iter(known))))
            for owner in owners:
                self._own(owner, slot)
            while len(self._slots) > self._size:
                dropped.append(self._drop(next(iter(self._slots))))
        self._bury()

    def _own(self, owner, slot):
        held = WeaklySame(owner)
        if held not in self._owned:
            try:
                finalizer = weakref.finalize(owner, self._owner_died, held)
            except TypeError:  # a built-in function or a class of C's, which stay
                return
            finalizer.atexit = False
            self._owned[held] = finalizer, set()
        self._owned[held][1].add(slot)

    def _drop(self, slot):
        for owner, (finalizer, slots) in list(self._owned.items()):
            slots.discard(slot)
            if not slots:
                finalizer.detach()
                del self._owned[owner]
        return self._slots.pop(slot, None)

    def _owner_died(self, owner):
        # The collector calls this anywhere, also inside of this class, so the lock may be this thread's own.
        self._gone.append(owner)
        self._bury()

    def _bury(self):
        """Drop the slots of dead owners; whoever holds the lock does it afterwards."""
        while self._gone and self._lock.acquire(blocking=False):
            dropped = []
            try:
                while self._gone:
                    _, slots = self._owned.pop(self._gone.popleft(), (None, ()))
                    dropped += [self._drop(slot) for slot in slots]
            finally:
                self._lock.release()
            del dropped
