"""A traced function as a key: equal where the computations are, whatever functions they came from.

This is why a fresh lambda with the same body compiles nothing: the compiled solve is looked up by what
was traced, not by who was traced.
"""

import hashlib
from typing import NamedTuple

import jax
import jax.extend.core as jex
import numpy as np

from jaxmin._cache import rules

# New at each trace, and determined by the rest. Equinox's primitives note in "flatten" how they return.
_REDUNDANT = {"out_trees", "debug_info", "flatten"}


class Computation:
    """A closed computation whose constants are leading arguments."""

    __slots__ = ("jaxpr",)

    def __init__(self, jaxpr):
        self.jaxpr = jaxpr.replace(invars=[*jaxpr.constvars, *jaxpr.invars], constvars=[])

    @property
    def outputs(self):
        """The shapes and dtypes of its outputs."""
        return [v.aval for v in self.jaxpr.outvars]

    def __call__(self, *arrays):
        """Evaluate: constants first, then the arguments; a list of outputs."""
        return jex.jaxpr_as_fun(jex.ClosedJaxpr(self.jaxpr, ()))(*arrays)


class Signature(Computation):
    """A computation that is hashable by its content: equal to all that compute the same.

    Of the derivative rules in it, which must be JAX's own, it knows which they are.
    """

    __slots__ = ("_content", "_hash")

    def __init__(self, jaxpr):
        super().__init__(jaxpr)
        self._content = _of_jaxpr(self.jaxpr)
        self._hash = hash(self._content)

    def __hash__(self):
        return self._hash

    def __eq__(self, other):
        return isinstance(other, Signature) and self._hash == other._hash and self._content == other._content


class Signed(NamedTuple):
    """A traced computation, taken apart."""

    signature: Signature
    constants: list  # its leading arguments
    with_rules: Computation | None  # the same with its derivative rules, where some are left that are not JAX's


def signed(closed, *args):
    """A traced computation of these arguments, ``Signed``.

    The arrays that jitted functions in it closed over are among its constants. Inside they would be part of the
    compiled program, and a new array a new program.
    """
    if _hides_constants(closed.jaxpr):
        closed = jax.make_jaxpr(lambda *args: _inlined(closed.jaxpr, closed.consts, *args))(*args)
    jaxpr, constants = closed.jaxpr, closed.consts
    if not rules.any_unknown(jaxpr):
        return Signed(Signature(jaxpr), constants, None)
    plain = rules.without(jaxpr)
    if not _hides_constants(plain):
        return Signed(Signature(plain), constants, Computation(jaxpr))
    # Both have the same arguments: to the one with rules those more that the functions with rules hid are of no use.
    plain = jax.make_jaxpr(lambda constants, *args: _inlined(plain, constants, *args))(constants, *args)
    with_rules = jaxpr.replace(constvars=[*plain.jaxpr.constvars, *jaxpr.constvars])
    return Signed(Signature(plain.jaxpr), [*plain.consts, *constants], Computation(with_rules))


def _is_call(eqn):
    return eqn.primitive.name in ("jit", "pjit", "closed_call")


def _called(eqn):
    return eqn.params["call_jaxpr" if eqn.primitive.name == "closed_call" else "jaxpr"]


def _hides_constants(jaxpr):
    inner = [_called(eqn) for eqn in jaxpr.eqns if _is_call(eqn)]
    return any(call.consts or _hides_constants(call.jaxpr) for call in inner)


def _inlined(jaxpr, consts, *args):
    """Evaluate, calls in line."""
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args]))
    for eqn in jaxpr.eqns:
        inputs = [v.val if isinstance(v, jex.Literal) else known[v] for v in eqn.invars]
        if _is_call(eqn):
            outputs = _inlined(_called(eqn).jaxpr, _called(eqn).consts, *inputs)
        else:
            bound = eqn.primitive.get_bind_params(eqn.params)
            functions, params = bound if isinstance(bound, tuple) else ((), bound)  # before jax 0.9, and since
            with eqn.ctx.manager:
                outputs = eqn.primitive.bind(*functions, *inputs, **params)
        known.update(zip(eqn.outvars, outputs if eqn.primitive.multiple_results or _is_call(eqn) else [outputs]))
    return [v.val if isinstance(v, jex.Literal) else known[v] for v in jaxpr.outvars]


class Same:
    """An object that equals only itself; it is held, so that its id stays its own."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value

    def __hash__(self):
        return id(self.value)

    def __eq__(self, other):
        return isinstance(other, Same) and self.value is other.value


def _of_jaxpr(jaxpr):
    """The content of a jaxpr, hashable: each variable by the order in which it is met."""
    number: dict = {}

    def var(v):
        if isinstance(v, jex.Literal):
            return "literal", str(v.aval), np.asarray(v.val).tobytes()
        return number.setdefault(v, len(number)), str(v.aval)

    inputs = tuple(map(var, [*jaxpr.constvars, *jaxpr.invars]))
    equations = tuple(
        (
            _of(eqn.primitive),
            tuple(map(var, eqn.invars)),
            tuple(map(var, eqn.outvars)),
            _parameters(eqn),
            repr(eqn.ctx),  # how random bits are made, where it runs
        )
        for eqn in jaxpr.eqns
    )
    return inputs, equations, tuple(map(var, jaxpr.outvars))


def _parameters(eqn):
    params = {name: value for name, value in eqn.params.items() if name not in _REDUNDANT}
    if rules.is_call(eqn):
        params["jvp_jaxpr_fun"] = rules.known(eqn)
    return tuple((name, _of(value)) for name, value in params.items())


def _of(value):
    if isinstance(value, jex.ClosedJaxpr):
        return _of_jaxpr(value.jaxpr), tuple(map(_of, value.consts))
    if isinstance(value, jex.Jaxpr):
        return _of_jaxpr(value)
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(_of, value))
    if isinstance(value, dict):
        return tuple((_of(key), _of(item)) for key, item in value.items())
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return value.shape, str(value.dtype), hashlib.sha256(value.tobytes()).digest()
    if isinstance(value, jax.Array):
        return Same(value)
    if type(value).__name__ == "ClosedRule" and value.rule.__module__.startswith("jaxmin."):
        return value.rule  # of a batch, in JAX's wrapping, which is new at each trace
    try:
        hash(value)
    except TypeError:
        return Same(value)
    # 1 == 1.0 == True: the type is part of the key. NaN equals itself as an object only.
    return type(value), value
