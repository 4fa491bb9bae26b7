"""What to say where a user's function cannot be traced: the line, what is wrong with it, and what to write instead."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax

from jaxmin._cache.rules import lack_derivative
from jaxmin._core.frames import origin


class Mistake(NamedTuple):
    """A kind of error of JAX, in words."""

    error: type[Exception]
    wrong: str
    instead: str


_UNKNOWN = "while it is compiled, x and the arrays in args are traced, without numbers."
# The first row that fits counts: each kind of JAX's errors stands before those that it is a case of.
_MISTAKES = (
    Mistake(
        jax.errors.TracerBoolConversionError,
        f"Python's if, while, and, or, not, min and max need a number; {_UNKNOWN}",
        "Write jnp.where(condition, a, b) for a choice, jax.lax.cond for a branch, jax.lax.while_loop for a loop, "
        "jnp.minimum and jnp.maximum for min and max.",
    ),
    Mistake(
        jax.errors.TracerIntegerConversionError,
        f"an index of a list, a range and a shape need a whole number; {_UNKNOWN}",
        "Write jnp.asarray(numbers)[i] for an index, jax.lax.fori_loop for a loop.",
    ),
    Mistake(
        jax.errors.NonConcreteBooleanIndexError,
        f"x[mask] has as many entries as the mask has True; {_UNKNOWN}",
        "Write jnp.where(mask, x, 0), or another number for entries that do not count.",
    ),
    Mistake(
        jax.errors.ConcretizationTypeError,
        f"float(), int(), .item(), functions of math and sizes of arrays need a number; {_UNKNOWN}",
        "Omit float() and .item(), write jnp.exp for math.exp, x.astype(int) for int(x), and give sizes as Python "
        "integers.",
    ),
    Mistake(
        jax.errors.TracerArrayConversionError,
        "it passes a traced array to NumPy, or to a library that needs NumPy arrays.",
        "Write it with jax.numpy (jnp.sum for np.sum)",
    ),
)


def check_derivatives(jaxpr: Any, outputs: Sequence[bool], needs: str, way_out: str) -> None:
    """Raise a TypeError if these outputs of a derivative need one that a ``custom_vjp`` function does not have.

    Args:
      jaxpr: that of the derivative.
      outputs: flags, which of its outputs the method needs.
      needs: the derivatives, in words.
      way_out: what to do, a sentence.
    """
    if lack_derivative(jaxpr, outputs):
        raise TypeError(
            "fun: it calls a jax.custom_vjp function, which has first derivatives in reverse mode only, and this "
            f"method needs {needs}. {way_out}"
        )


def explained(error: Exception, name: str, without_numpy: str) -> TypeError | None:
    """The error in words, to be raised from it; None for an error that says by itself what is wrong.

    Args:
      name: the function that is traced.
      without_numpy: what else helps against a library that needs NumPy.
    """
    for mistake in _MISTAKES:
        if isinstance(error, mistake.error):
            line = origin(error)
            end = f", or {without_numpy}." if mistake.error is jax.errors.TracerArrayConversionError else ""
            where = "" if line is None else f" The line is {line}"
            return TypeError(f"{name}: {mistake.wrong} {mistake.instead}{end}{where}")
    return None


@contextlib.contextmanager
def in_words(name: str, without_numpy: str) -> Iterator[None]:
    """Raise :func:`explained` for an error inside, and any other error as it is."""
    try:
        yield
    except Exception as error:
        words = explained(error, name, without_numpy)
        if words is None:
            raise
        raise words from error
