"""A traced function as a key: equal where the computations are, whatever functions they came from.

This is why a fresh lambda with the same body compiles nothing: the compiled solve is looked up by what
was traced, not by who was traced.
"""

import jax
import jax.extend.core as jex
import numpy as np

from jaxmin._cache import rules

# Made anew by each trace, and determined by the rest.
_REDUNDANT = {"out_trees", "debug_info"}


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
    """A closed computation, its constants turned into leading arguments, hashable by its content.

    The content is a form, and the objects in it that equal only themselves (arrays that a derivative rule
    closed over, say), which the form numbers: ``identities``.
    """

    __slots__ = ("_hash", "form", "identities", "jaxpr")

    def __init__(self, jaxpr):
        self.jaxpr = jaxpr.replace(invars=[*jaxpr.constvars, *jaxpr.invars], constvars=[])
        content = _Content()
        self.form = content.of_jaxpr(self.jaxpr)
        self.identities = tuple(content.identities)
        self._hash = hash((self.form, self.identities))

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
        return isinstance(other, Signature) and (self.form, self.identities) == (other.form, other.identities)


class Same:
    """An object that equals only itself; it is kept alive, so that its id stays its own."""

    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value

    def __hash__(self):
        return id(self.value)

    def __eq__(self, other):
        return isinstance(other, Same) and self.value is other.value


class _Content:
    """The content of a jaxpr, taken down piece by piece."""

    def __init__(self):
        self.identities = {}  # Same -> its number, in the order met

    def identical(self, value):
        return "object", self.identities.setdefault(Same(value), len(self.identities))

    def of_jaxpr(self, jaxpr):
        number: dict = {}

        def var(v):
            if isinstance(v, jex.Literal):
                return "literal", str(v.aval), np.asarray(v.val).tobytes()
            return number.setdefault(v, len(number)), str(v.aval)

        inputs = tuple(map(var, [*jaxpr.constvars, *jaxpr.invars]))
        equations = tuple(
            (
                self.of(eqn.primitive),
                tuple(map(var, eqn.invars)),
                tuple(map(var, eqn.outvars)),
                tuple((name, self._parameter(name, value)) for name, value in eqn.params.items()),
                repr(eqn.ctx),  # how random bits are made, where it runs
            )
            for eqn in jaxpr.eqns
        )
        return inputs, equations, tuple(map(var, jaxpr.outvars))

    def _parameter(self, name, value):
        if name in _REDUNDANT:
            return None
        return rules.rule_key(value, self.identical) if name in rules.PARAMETERS else self.of(value)

    def of(self, value):
        if isinstance(value, jex.ClosedJaxpr):
            return self.of_jaxpr(value.jaxpr), tuple(map(self.of, value.consts))
        if isinstance(value, jex.Jaxpr):
            return self.of_jaxpr(value)
        if isinstance(value, (list, tuple)):
            return type(value), tuple(map(self.of, value))
        if isinstance(value, dict):
            return tuple((self.of(key), self.of(item)) for key, item in value.items())
        if isinstance(value, np.ndarray) and not value.dtype.hasobject:
            return rules.content(value)
        if isinstance(value, jax.Array):
            return self.identical(value)
        try:
            hash(value)
        except TypeError:
            return self.identical(value)
        # 1 == 1.0 == True: the type is part of the key. NaN equals itself as an object only.
        return type(value), value
