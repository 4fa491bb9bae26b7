"""Everything that a method or a line search of your own imports; the pages on writing them use nothing else."""

from jaxmin._cache.builder import builder
from jaxmin._core import vector
from jaxmin._core.box import Box, Unbounded
from jaxmin._core.protocol import Direction, Iterate, LineSearch, Method, Start
from jaxmin._core.status import Status
from jaxmin.methods._descend import descend

__all__ = [
    "Box", "Direction", "Iterate", "LineSearch", "Method", "Start", "Status", "Unbounded", "builder", "descend",
    "vector",
]  # fmt: skip
