"""Code that is not the same for one solve and for a batch of them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from jaxmin._core.promotion import standard
from jaxmin._core.typing import PyTree, Scalar

# From this many variables on a branch is cheaper than the passes over vectors that it saves.
_MANY_VARIABLES = 2**15


def cond_in_batch(needed: Scalar, thorough: Callable[[], PyTree], usual: Callable[[], PyTree], n: int) -> PyTree:
    """``thorough()``, which ``usual()`` equals wherever ``needed`` is false.

    A batch under ``vmap`` branches as a whole, and runs ``thorough`` in the steps in which some lane needs it. A solve
    of many variables branches too. Any other solve always runs ``thorough``: that is cheaper than a branch.

    Args:
      needed: [] bool.
      thorough, usual: functions without arguments whose results have the same structure; they close over their inputs.
      n: the number of variables.
    """
    few = isinstance(n, int) and n < _MANY_VARIABLES  # it may be symbolic, in jax.export
    branches = _always_alone if few else anywhere
    return lax.cond(branches(needed), thorough, usual)


def branch(needed: Scalar, thorough: Callable[[], PyTree], usual: Callable[[], PyTree]) -> PyTree:
    """``lax.cond(needed, thorough, usual)``; in a batch ``thorough`` runs in the steps in which some lane needs it."""

    def some() -> PyTree:
        return jax.tree.map(lambda new, old: jnp.where(needed, new, old), thorough(), usual())

    return lax.cond(anywhere(needed), some, usual)


def where_needed(needed: Scalar, thorough: Callable[..., PyTree], usual: PyTree, *args: PyTree) -> PyTree:
    """``thorough(*args)`` where ``needed``, else ``usual``.

    In a batch on a CPU, lanes that need ``thorough`` run it one after the other. On other devices all lanes run it
    together where some lane needs it.

    Args:
      needed: [] bool.
      thorough: a function that closes over no traced array; its result is built like ``usual``.
      usual: the result elsewhere.
      args: the arguments of ``thorough``.
    """

    @jax.custom_batching.custom_vmap
    def chosen(needed: Scalar, usual: PyTree, args: tuple[PyTree, ...]) -> PyTree:
        return lax.cond(needed, lambda: thorough(*args), lambda: usual)

    @chosen.def_vmap
    def in_batch(
        size: int, split: list[PyTree], needed: jax.Array, usual: PyTree, args: tuple[PyTree, ...]
    ) -> tuple[PyTree, PyTree]:
        everywhere = lambda tree, axes: jax.tree.map(
            lambda u, is_batched: jnp.asarray(u) if is_batched else jnp.broadcast_to(u, (size, *jnp.shape(u))),
            tree,
            axes,
        )
        needed, usual, args = everywhere((needed, usual, args), tuple(split))
        rule = _one_by_one if jax.default_backend() == "cpu" else _together
        return rule(needed, standard(thorough), usual, args), jax.tree.map(lambda _: True, usual)

    return chosen(needed, usual, args)


def _one_by_one(needed: jax.Array, thorough: Callable[..., PyTree], usual: PyTree, args: tuple[PyTree, ...]) -> PyTree:
    """:func:`where_needed` of a batch, with one lane at a time."""
    first = jnp.argsort(~needed)  # lanes that need it come first

    def one(k: Scalar, out: PyTree) -> PyTree:
        lane = lambda tree: jax.tree.map(lambda u: u[first[k]], tree)
        return jax.tree.map(lambda u, new: u.at[first[k]].set(new), out, thorough(*lane(args)))

    return lax.fori_loop(0, jnp.sum(needed), one, usual)


def _together(needed: jax.Array, thorough: Callable[..., PyTree], usual: PyTree, args: tuple[PyTree, ...]) -> PyTree:
    """:func:`where_needed` of a batch, with all lanes at once where some lane needs it."""

    def one(needed: Scalar, usual: PyTree, args: tuple[PyTree, ...]) -> PyTree:
        return jax.tree.map(lambda u, v: jnp.where(needed, u, v), thorough(*args), usual)

    return lax.cond(anywhere(jnp.any(needed)), lambda: jax.vmap(one)(needed, usual, args), lambda: usual)


def unless_batched(alone: Callable[..., PyTree], plain: Callable[..., PyTree]) -> Callable[..., PyTree]:
    """``alone``, which has the results of ``plain`` up to rounding; ``plain`` under ``vmap`` and for derivatives.

    Only a transformation that transposes it fails, such as ``jax.linear_transpose``.
    """

    alone, plain = standard(alone), standard(plain)  # the rules below are called later, in the user's setting

    @jax.custom_jvp
    def function(*args: PyTree) -> PyTree:
        return unbatched(*args)

    @jax.custom_batching.custom_vmap
    def unbatched(*args: PyTree) -> PyTree:
        return alone(*args)

    @unbatched.def_vmap
    def in_batch(size: int, split: list[PyTree], *args: PyTree) -> tuple[PyTree, PyTree]:
        axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, tuple(split))
        out = jax.vmap(plain, axes, axis_size=size)(*args)
        return out, jax.tree.map(lambda _: True, out)

    @function.defjvp
    def derivative(primals: tuple[PyTree, ...], tangents: tuple[PyTree, ...]) -> tuple[PyTree, PyTree]:
        return function(*primals), jax.jvp(plain, primals, tangents)[1]

    return function


def _of_a_batch(alone: Callable[[Scalar], Scalar]) -> Callable[[Scalar], Scalar]:
    """A function of a bool that returns an unbatched bool: ``alone(needed)``, or in a batch whether any lane needs it.

    A ``lax.cond`` on the returned bool stays a branch under ``vmap``. A ``lax.cond`` on ``needed`` itself would become
    a select. Only the bool passes through the batching rule, so the branches keep their derivatives and may close over
    arrays.
    """

    @jax.custom_batching.custom_vmap
    def known(needed: Scalar) -> Scalar:
        return alone(needed)

    @known.def_vmap
    def in_batch(size: int, split: list[bool], needed: jax.Array) -> tuple[Scalar, bool]:
        del size, split
        return anywhere(jnp.any(needed)), False

    return known


anywhere = _of_a_batch(lambda needed: needed)
_always_alone = _of_a_batch(lambda needed: jnp.ones((), bool))
