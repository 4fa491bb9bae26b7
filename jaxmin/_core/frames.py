"""Where the user's own code is: on the stack, and in a traceback."""

import linecache
import os
import sys
import sysconfig
import traceback

import jax
import numpy as np

# The folders of jaxmin, JAX and NumPy, whose lines no user has written, and those of installed code.
_INSIDE = tuple(
    os.path.dirname(file) + os.sep for file in (os.path.dirname(__file__), jax.__file__, np.__file__)
)  # fmt: skip
_INSTALLED = tuple(sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib", "stdlib"))


def stacklevel() -> int:
    """The ``stacklevel`` with which the function that calls this warns at a line outside of jaxmin."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE[0]):
        frame, level = frame.f_back, level + 1
    return level


def origin(error: BaseException) -> str | None:
    """The line of the user's code that raised the error, in words; None if the traceback has no such line."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(_INSIDE)]
    if not frames:
        return None
    own = [frame for frame in frames if not frame.filename.startswith(_INSTALLED)]
    frame = (own or frames)[-1]
    code = linecache.getline(frame.filename, frame.lineno or 0).strip()
    where = f"{frame.filename}, line {frame.lineno}, in {frame.name}"
    return f"{where}: {code}" if code else where
