"""A line that says what is being compiled, on a terminal only."""

import contextlib
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def progress(text: str) -> Iterator[None]:
    """Show `text` for as long as the block runs; write nothing if neither stdout nor stderr is a terminal."""
    stream = next((stream for stream in (sys.stdout, sys.stderr) if stream.isatty()), None)
    if stream is None:
        yield
        return
    line = f"  {text} ..."
    print(f"\r{line}", end="", file=stream, flush=True)
    try:
        yield
    finally:
        print(f"\r{' ' * len(line)}\r", end="", file=stream, flush=True)
