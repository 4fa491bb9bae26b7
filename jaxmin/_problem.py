"""A problem: fun traced once and checked, and the edge between the user's pytrees and one flat vector."""

import collections
import contextlib
import functools
import math
import weakref
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin import _frozen
from jaxmin._partition import Static, is_array, is_number, partition
from jaxmin._signature import Signature, with_all_constants


class Variables:
    """The leaves of x that vary, as one flat real vector: its dtype, and the way there and back.

    A complex leaf is its real and its imaginary part, side by side. The vector's dtype is the widest of
    the leaves' and of fun's own, float32 at least; ``rounded`` is what each leaf can hold of it.
    """

    def __init__(self, leaves, wide=jnp.float32):
        self.shapes = tuple((leaf.shape, jnp.dtype(leaf.dtype)) for leaf in leaves)
        real = [jnp.finfo(dtype).dtype for _, dtype in self.shapes]
        self.dtype = jnp.result_type(*real, wide, jnp.float32)
        self._exact = all(dtype == self.dtype for dtype in real)
        self.size = sum(math.prod(shape) * (1 + (dtype.kind == "c")) for shape, dtype in self.shapes)

    def __hash__(self):
        return hash((self.shapes, self.dtype))

    def __eq__(self, other):
        return isinstance(other, Variables) and (self.shapes, self.dtype) == (other.shapes, other.dtype)

    def ravel(self, leaves):
        """The leaves, end to end."""
        parts = []
        for leaf in leaves:
            flat = leaf.reshape(-1)
            halves = [flat.real, flat.imag] if jnp.iscomplexobj(flat) else [flat]
            parts += [half.astype(self.dtype) for half in halves]
        return parts[0] if len(parts) == 1 else jnp.concatenate([jnp.zeros(0, self.dtype), *parts])

    def unravel(self, vector):
        """The leaves back, each in its own shape and dtype."""
        leaves, start = [], 0

        def take(count, dtype):
            nonlocal start
            start += count
            return vector[start - count : start].astype(dtype)

        for shape, dtype in self.shapes:
            count = math.prod(shape)
            real = jnp.finfo(dtype).dtype
            leaf = take(count, real)
            if jnp.issubdtype(dtype, jnp.complexfloating):
                leaf = jax.lax.complex(leaf, take(count, real))
            leaves.append(leaf.reshape(shape))
        return leaves

    def rounded(self, vector):
        """The vector as the leaves hold it."""
        return vector if self._exact else self.ravel(self.unravel(vector))


class Trace(NamedTuple):
    """What tracing fun gave."""

    signature: Signature  # constants, x leaves, other arrays -> value, gradient leaves, aux leaves
    constants: list  # what fun closed over
    value_dtype: Any
    aux_static: Static


class Problem(NamedTuple):
    """A minimisation problem ready to be solved: what is compiled, and what it is fed."""

    trace: Trace
    variables: Variables
    x_static: Static  # x0 without the leaves that vary, and without its other arrays
    leaves: list  # x0: the leaves that vary
    fixed: list  # x0: arrays that do not
    arrays: list  # arrays of fun, of jac, and of args

    def inputs(self):
        """What the compiled solve is fed beside the leaves of x0."""
        return self.trace.constants, self.fixed, self.arrays


def build(fun, x0, args, jac, has_aux):
    """Trace fun once, with its gradient, at x0; every defect that needs no values is raised here."""
    args = args if isinstance(args, tuple) else (args,)
    try:
        return _build(fun, x0, args, jac, has_aux, _is_argument)
    except Exception as error:
        # A number among args, or bound by functools.partial, that steers Python control flow (a range, an
        # axis, a shape) cannot be traced: take the numbers as constants, at the price of a second trace.
        if any(map(is_number, jax.tree.leaves((_taken_apart(fun), args)))):
            with contextlib.suppress(Exception):
                return _build(fun, x0, args, jac, has_aux, is_array)
        if isinstance(error, jax.errors.TracerArrayConversionError):
            raise TypeError(
                "fun: it hands a traced array to NumPy, or to a library that wants NumPy arrays. Write it with "
                "jax.numpy, or wrap the foreign part in jax.pure_callback and give its gradient as jac."
            ) from error
        raise


def _build(fun, x0, args, jac, has_aux, is_argument):
    leaves, fixed, x_static = partition(canonical_x0(x0), _is_inexact, is_array)
    if not leaves and (x0 is None or x_static.leaves()):
        raise TypeError(f"x0={x0!r}: it holds nothing that can vary (a number, or an array of numbers)")
    parts = (_taken_apart(fun), _taken_apart(jac), jax.tree.map(_as_argument, args))
    arrays, static = partition(parts, is_argument)
    trace = _traced(static, x_static, leaves, fixed, arrays, jac is None, jac is True, has_aux)
    return Problem(trace, Variables(leaves, wide=trace.value_dtype), x_static, leaves, fixed, arrays)


_TRACES_MAX = 256
_traces = collections.OrderedDict()  # the traces used last, for functions that cannot have changed


def _traced(static, x_static, leaves, fixed, arrays, by_ad, with_grad, has_aux):
    """The trace, from those kept where it is certain to be the same."""

    def trace():
        return _trace(static, x_static, leaves, fixed, arrays, by_ad, with_grad, has_aux)

    try:
        if not (static.is_plain() and x_static.is_plain()):  # a class of its own sees what no key shows
            raise _frozen.Mutable
        shapes = jax.tree.map(_shape_key, (leaves, fixed, arrays))
        seen = tuple(_frozen.key(value) for value in (*static.leaves(), *x_static.leaves()))
        skeletons = static.skeleton(), x_static.skeleton()
        key = skeletons, str(shapes), seen, has_aux, tuple(getattr(jax.config, name) for name in _CONTEXT)
        known = _traces.get(key)
    except _frozen.Mutable:
        return trace()
    if known is None:
        known = _traces[key] = trace()
        for value in static.leaves():
            if callable(value):  # what it closed over goes with it
                weakref.finalize(value, _traces.pop, key, None).atexit = False
        while len(_traces) > _TRACES_MAX:
            _traces.popitem(last=False)
    _traces.move_to_end(key)
    return known


# Settings of JAX's that change what a trace holds.
_CONTEXT = (
    "jax_enable_x64",
    "jax_default_matmul_precision",
    "jax_numpy_dtype_promotion",
    "jax_numpy_rank_promotion",
    "jax_enable_custom_prng",
    "jax_default_prng_impl",
    "jax_debug_nans",
    "jax_debug_infs",
)


def _shape_key(leaf):
    if isinstance(leaf, jax.core.Tracer):
        raise _frozen.Mutable  # inside an outer trace, which is kept as a whole
    weak = is_number(leaf) and not isinstance(leaf, np.generic)
    return (type(leaf),) if weak else (leaf.shape, leaf.dtype, getattr(leaf, "weak_type", False))


def _trace(static, x_static, leaves, fixed, arrays, by_ad, with_grad, has_aux):
    aux_box = []

    def value_and_grad(leaves, fixed, arrays):
        fun, jac, args = static.combine(arrays)

        def objective(leaves):
            out = fun(x_static.combine(leaves, fixed), *args)
            (value, aux), grad = _split(out, with_grad, has_aux)
            return _as_scalar(value), (aux, grad)

        if by_ad:
            (value, (aux, _)), grad = jax.value_and_grad(objective, has_aux=True)(leaves)
        else:
            value, (aux, grad) = objective(leaves)
            if not with_grad:
                grad = jac(x_static.combine(leaves, fixed), *args)
            grad = _checked_gradient(grad, leaves, x_static)
        aux, aux_static = partition(aux, lambda leaf: is_array(leaf) or is_number(leaf))
        aux_box.append(aux_static)
        return value, grad, [jnp.asarray(leaf) for leaf in aux]

    closed, shapes = jax.make_jaxpr(value_and_grad, return_shape=True)(leaves, fixed, arrays)
    closed = with_all_constants(closed, *jax.tree.leaves((leaves, fixed, arrays)))
    return Trace(Signature(closed.jaxpr), closed.consts, shapes[0].dtype, aux_box[-1])


def canonical_x0(x0):
    """x0 with every leaf that is to vary an inexact array.

    A list or tuple of plain numbers, and anything with ``__array__``, is one array. Integers become the
    default float dtype, but not inside a node of a class of its own (a module): there a whole number is
    a setting.
    """
    if type(x0) in (list, tuple) and all(is_number(number) or isinstance(number, bool) for number in x0):
        return _as_variable(np.asarray(x0, dtype=None if x0 else float))
    if not isinstance(x0, jax.Array) and hasattr(x0, "__array__"):
        x0 = _native(np.asarray(x0))
    if is_array(x0):
        return _as_variable(x0)

    def in_plain_containers(node):
        if _is_node(node):  # a class of its own
            return jax.tree.map(lambda leaf: _as_variable(leaf) if _is_inexact(leaf) else leaf, node)
        number = is_number(node) or (is_array(node) and not _is_flag(node))
        return _as_variable(node) if number else node

    def is_own_class(node):
        return _is_node(node) and not isinstance(node, (dict, list, tuple))

    return jax.tree.map(in_plain_containers, x0, is_leaf=is_own_class)


def _is_node(tree):
    return tree is not None and not jax.tree_util.all_leaves([tree])


def _is_flag(leaf):
    """Booleans and random keys: arrays, but never variables."""
    return leaf.dtype == bool or jnp.issubdtype(leaf.dtype, jax.dtypes.extended)


def _is_inexact(leaf):
    if isinstance(leaf, (float, complex)):
        return True
    return is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact)


def _as_variable(leaf):
    try:
        array = jnp.asarray(leaf)
    except TypeError as error:
        raise TypeError(f"x0: {leaf!r} is no array of numbers") from error
    if not jnp.issubdtype(array.dtype, jnp.inexact):
        return array.astype(jnp.result_type(float))
    # A Python number is weakly typed; a variable has the dtype it shows.
    return jax.lax.convert_element_type(array, array.dtype)


def _as_argument(leaf):
    """Array-likes of other libraries as arrays; what is no number stays as it is."""
    if not isinstance(leaf, (jax.Array, np.generic)) and hasattr(leaf, "__array__"):
        leaf = _native(np.asarray(leaf))
    return leaf


def _native(array):
    """The array in this machine's byte order: JAX knows no other."""
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _is_argument(leaf):
    return is_array(leaf) or is_number(leaf)


def _taken_apart(fun):
    """A ``functools.partial`` as a pytree, so that what it binds can be told from what it calls."""
    if isinstance(fun, functools.partial) and not isinstance(fun, jax.tree_util.Partial):
        return jax.tree_util.Partial(fun.func, *fun.args, **fun.keywords)
    return fun


def _split(out, with_grad, has_aux):
    """What fun returned, as ((value, aux), grad)."""
    expected = "((value, aux), gradient)" if has_aux else "(value, gradient)"
    grad = None
    if with_grad:
        out, grad = _pair(out, "jac=True", expected)
    return (_pair(out, "has_aux=True", "(value, aux)") if has_aux else (out, None)), grad


def _pair(out, setting, expected):
    if not (isinstance(out, (tuple, list)) and len(out) == 2):
        size = f" of {len(out)}" if isinstance(out, (tuple, list)) else ""
        raise TypeError(f"fun: with {setting} it must return {expected}, not a {type(out).__name__}{size}")
    return out


def _as_scalar(value):
    """The objective as a real scalar."""
    if isinstance(value, (tuple, list)) or not (is_number(value) or hasattr(value, "dtype")):
        raise TypeError(
            f"fun: it must return one number, not {type(value).__name__}"
            " (has_aux=True if it returns (value, aux); jac=True if it returns (value, gradient))"
        )
    value = jnp.asarray(value)
    if value.size != 1:
        raise ValueError(f"fun: it must return one number, not an array of shape {value.shape}")
    if jnp.iscomplexobj(value):
        raise TypeError(f"fun: it must return a real number, not {value.dtype}; take its real part or modulus")
    if not jnp.issubdtype(value.dtype, jnp.floating):
        value = value.astype(jnp.result_type(float))
    return value.reshape(())


def _checked_gradient(grad, leaves, x_static):
    """The user's gradient, leaf by leaf in the shape and dtype of x0."""
    try:
        if jax.tree_util.treedef_is_leaf(x_static.treedef):
            grad = jnp.asarray(grad)  # a list of numbers, as SciPy takes it
        grads = [jnp.asarray(g) for g in x_static.pick(grad)]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"jac: a gradient built as {jax.tree.structure(grad)} ({type(grad).__name__}) for x0 built as "
            f"{x_static.treedef}"
        ) from error
    checked = []
    for leaf, g in zip(leaves, grads):
        if g.shape != leaf.shape:
            raise ValueError(f"jac: a gradient of shape {g.shape} for a part of x0 of shape {leaf.shape}")
        if jnp.iscomplexobj(g) and not jnp.iscomplexobj(leaf):
            raise TypeError(f"jac: a complex gradient ({g.dtype}) for a real part of x0 ({leaf.dtype})")
        checked.append(g.astype(leaf.dtype))
    return checked
