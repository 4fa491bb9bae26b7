"""The compiled programs used last: as many as a process has room for."""

import functools
import math
import pathlib

import jax

from jaxmin._cache.lru import LRU

_MOST = 256  # programs
_FEW = 8  # stay, whatever the process holds beside them
_MAPS, _LIMIT = pathlib.Path("/proc/self/maps"), pathlib.Path("/proc/sys/vm/max_map_count")
_cache = LRU(_MOST)
_seen = [0, 0]  # compilations of this process, now and when its maps were counted


def program(key, build):
    """``build()``, or what it gave before for that key."""
    found = _cache.get(key)
    if found is None:
        found = _cache.put(key, build())
    if _seen[0] != _seen[1]:
        _seen[1] = _seen[0]
        _make_room()
    return found


def _make_room():
    """Let go of programs while the process has used a quarter of the memory maps that Linux grants it.

    XLA's code for a CPU takes three maps a kernel: 160 a solve, 820 with its derivatives and its batches. A process
    that asks for more than are granted ends at once. What each program takes cannot be known, as JAX compiles its
    batches and derivatives later: so all are counted together, after whatever was compiled.
    """
    while len(_cache) > _FEW and _maps() > _most():
        _cache.drop(max(1, min(len(_cache) // 4, len(_cache) - _FEW)))


def _maps():
    """How many this process has; 0 where there is no such number."""
    try:
        return _MAPS.read_bytes().count(b"\n")
    except OSError:
        return 0


@functools.cache
def _most():
    """How many this process may have before programs are dropped; no limit where Linux does not say."""
    try:
        return int(_LIMIT.read_text()) // 4
    except (OSError, ValueError):
        return math.inf


def _count(event, *_, **__):
    if event.endswith("backend_compile_duration"):
        _seen[0] += 1


jax.monitoring.register_event_duration_secs_listener(_count)
