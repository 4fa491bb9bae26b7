"""Everything that a method or a line search of your own imports; the pages on writing them use nothing else."""

from jaxmin._cache.builder import builder
from jaxmin._core import vector
from jaxmin._core.box import Box, Unbounded
from jaxmin._core.protocol import Defaults, Direction, Iterate, LineSearch, Method, PerVariable, Start
from jaxmin._core.status import Status
from jaxmin.linesearches import search
from jaxmin.methods._descend import descend

__all__ = [
    "Box", "Defaults", "Direction", "Iterate", "LineSearch", "Method", "PerVariable", "Start", "Status", "Unbounded",
    "builder", "descend", "search", "vector",
]  # fmt: skip
