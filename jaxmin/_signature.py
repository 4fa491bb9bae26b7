"""A traced function as a key: equal where the computations are, whatever functions they came from.

This is why a fresh lambda with the same body compiles nothing: the compiled solve is looked up by what
was traced, not by who was traced.
"""

import jax
import jax.extend.core as jex
import numpy as np

# How to differentiate a call. Each trace makes these anew, and a solve never reads them: its gradient is
# already part of the traced computation.
_RULES = {"jvp_jaxpr_fun", "jvp_jaxpr_thunk", "fwd_jaxpr_thunk", "bwd", "out_trees", "debug_info"}


def with_all_constants(closed, *args):
    """The computation with the arrays that jitted functions in it closed over among its own constants.

    There they would be part of the compiled program, and a new array a new program.
    """
    if not _hides_constants(closed.jaxpr):
        return closed
    return jax.make_jaxpr(lambda *args: _inlined(closed.jaxpr, closed.consts, *args))(*args)


def _is_jit(eqn):
    return eqn.primitive.name in ("jit", "pjit")


def _hides_constants(jaxpr):
    inner = [eqn.params["jaxpr"] for eqn in jaxpr.eqns if _is_jit(eqn)]
    return any(call.consts or _hides_constants(call.jaxpr) for call in inner)


def _inlined(jaxpr, consts, *args):
    """Evaluate, jitted calls in line."""
    known = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *args]))
    for eqn in jaxpr.eqns:
        inputs = [v.val if isinstance(v, jex.Literal) else known[v] for v in eqn.invars]
        if _is_jit(eqn):
            outputs = _inlined(eqn.params["jaxpr"].jaxpr, eqn.params["jaxpr"].consts, *inputs)
        else:
            bound = eqn.primitive.get_bind_params(eqn.params)
            functions, params = bound if isinstance(bound, tuple) else ((), bound)  # older jax, newer jax
            outputs = eqn.primitive.bind(*functions, *inputs, **params)
        known.update(zip(eqn.outvars, outputs if eqn.primitive.multiple_results or _is_jit(eqn) else [outputs]))
    return [v.val if isinstance(v, jex.Literal) else known[v] for v in jaxpr.outvars]


class Signature:
    """A closed computation, its constants turned into leading arguments, hashable by its content."""

    __slots__ = ("_hash", "_key", "jaxpr")

    def __init__(self, jaxpr):
        self.jaxpr = jaxpr.replace(invars=[*jaxpr.constvars, *jaxpr.invars], constvars=[])
        self._key = _jaxpr_key(self.jaxpr)
        self._hash = hash(self._key)

    @property
    def outputs(self):
        """Shapes and dtypes of what it returns."""
        return [v.aval for v in self.jaxpr.outvars]

    def __call__(self, *arrays):
        """Evaluate: constants first, then the arguments; a list of outputs."""
        return jex.jaxpr_as_fun(jex.ClosedJaxpr(self.jaxpr, ()))(*arrays)

    def __hash__(self):
        return self._hash

    def __eq__(self, other):
        return isinstance(other, Signature) and self._key == other._key


class Same:
    """An object that equals only itself; it is kept alive, so that its id stays its own."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value

    def __hash__(self):
        return id(self.value)

    def __eq__(self, other):
        return isinstance(other, Same) and self.value is other.value


def _jaxpr_key(jaxpr):
    number = {}

    def var(v):
        if isinstance(v, jex.Literal):
            return "literal", str(v.aval), np.asarray(v.val).tobytes()
        return number.setdefault(v, len(number)), str(v.aval)

    inputs = tuple(map(var, [*jaxpr.constvars, *jaxpr.invars]))
    equations = tuple(
        (
            _value_key(eqn.primitive),
            tuple(map(var, eqn.invars)),
            tuple(map(var, eqn.outvars)),
            tuple((name, _value_key(value)) for name, value in eqn.params.items() if name not in _RULES),
        )
        for eqn in jaxpr.eqns
    )
    return inputs, equations, tuple(map(var, jaxpr.outvars))


def _value_key(value):
    if isinstance(value, jex.ClosedJaxpr):
        return _jaxpr_key(value.jaxpr), tuple(map(Same, value.consts))
    if isinstance(value, jex.Jaxpr):
        return _jaxpr_key(value)
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(_value_key, value))
    if isinstance(value, dict):
        return tuple((_value_key(key), _value_key(item)) for key, item in value.items())
    if isinstance(value, (np.ndarray, jax.Array)):
        return Same(value)
    try:
        hash(value)
    except TypeError:
        return Same(value)
    # 1 == 1.0 == True: the type is part of the key. NaN equals itself as an object only.
    return type(value), value
