"""A problem: fun, traced once and checked, and its input arrays."""

import contextlib
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmin._cache import programs, traces
from jaxmin._cache.computation import Computation, Signature, signed
from jaxmin._core.kkt import Rows
from jaxmin._core.loss import LINEAR, Loss
from jaxmin._core.protocol import CONSTRAINTS, PULLS, RESIDUALS
from jaxmin._core.pytree import Static, is_array, is_number, partition
from jaxmin._core.typing import PyTree
from jaxmin._core.variables import Variables, canonical_x0, is_inexact, native
from jaxmin._core.vector import typed_sharding
from jaxmin._problem import dependence
from jaxmin._problem.constraints import (
    Constraints,
    Part,
    Shape,
    hessian_of,
    hessian_of_rows,
    joined,
    pulled,
    rows,
    shape_of,
    values,
    with_pulls,
)
from jaxmin._problem.hessian import as_matrix
from jaxmin._problem.mistakes import check_derivatives, explained, in_words
from jaxmin._problem.residuals import as_vector, by_hand, jacobian

_ONE_RESIDUAL = (
    "fun returns one number, which counts as one residual: its square is minimised. Return all residuals, or take "
    "another method for a fun that is to be minimised itself."
)
_NO_SECOND = 'Take method="lbfgs", or give hessp, the product, or hess, the matrix, by hand.'
_NO_JACOBIAN = "Take method='levenberg_marquardt', and give jac, the Jacobian, by hand."


class Layout(NamedTuple):
    """How many outputs of a trace there are of each kind, between the gradient and aux."""

    r: int = 0  # 1 if there are residuals; 3 with a loss: its weights of these, and of the rows of J
    c: int = 0  # 1 if there are constraints
    J: int = 0  # 1 if their Jacobian is among them
    linear: int = 0  # the arrays of the linear map u -> J^T u


class Trace(NamedTuple):
    """The trace of fun."""

    # constants, x leaves, other arrays -> value, gradient leaves, those of ``layout``, aux leaves
    signature: Signature
    constants: list[jax.Array]  # the arrays that fun closes over
    with_rules: Computation | None  # the same with derivative rules, where some are left that are not JAX's own
    value_dtype: Any
    aux_static: Static
    by_hand: str | None = None  # "hess" or "hessp", if one is given and used
    # By hand: constants, x leaves, p leaves, other arrays -> H, or leaves of the product.
    # Of fun with its rules: these constants, fun's, x leaves, p leaves, other arrays -> fun's outputs, and the changes
    # of the outputs along p.
    second: Signature | None = None
    second_constants: Sequence[jax.Array] = ()  # the arrays that it closes over
    shapes: tuple[Shape, ...] = ()  # of the outputs of the constraints
    lagrangian: Signature | None = None  # constants, x leaves, v, other arrays -> the Hessian of f + v.c
    lagrangian_constants: Sequence[jax.Array] = ()
    flaw: str | None = None  # what is certainly wrong with fun, in words
    layout: Layout = Layout()
    # constants, fun's constants, x leaves, other arrays -> the Jacobian of the residuals
    jacobian: Signature | None = None
    jacobian_constants: Sequence[jax.Array] = ()
    pull: Signature | None = None  # constants, the linear map of the signature's outputs, u -> J^T u
    pull_constants: Sequence[jax.Array] = ()


class Problem(NamedTuple):
    """A minimisation problem that is ready to be solved: the functions to compile, and their inputs."""

    trace: Trace
    variables: Variables
    x_static: Static  # x0 without the leaves that vary, and without its other arrays
    leaves: list[jax.Array]  # x0: the leaves that vary
    fixed: list[Any]  # x0: the arrays that do not vary
    arrays: list[Any]  # the arrays in fun, jac, hess, hessp and args
    is_argument: Callable[[Any], bool]  # whether a leaf is one of them; a number is, if it can be traced
    rows: Rows | None = None  # the limits of the constraints

    @property
    def offers(self) -> frozenset[str]:
        """The names that a method may want. Second derivatives come by hand or by automatic differentiation."""
        if self.trace.layout.r:
            return RESIDUALS | {"grad", "hv", "box", "xtol", "ended", "rare"}
        of_rows = frozenset() if self.rows is None else CONSTRAINTS
        return frozenset({"grad", "hv", "H", "box", "set", "xtol", "ended", "rare"}) | of_rows


def build(
    fun: Callable[..., Any], x0: PyTree, args: Any, jac: Callable[..., Any] | bool | None, has_aux: bool,
    gradient: bool = True, hess: Callable[..., Any] | None = None, hessp: Callable[..., Any] | None = None,
    constraints: Constraints | None = None, wanted: frozenset[str] = frozenset(), loss: Loss = LINEAR,
) -> Problem:  # fmt: skip
    """Trace fun once at x0, with its gradient if ``gradient`` is true; raise for all that is wrong without values.

    At most one of ``hess`` and ``hessp`` is given. It is traced too. So are the constraints, and of their derivatives
    those that are ``wanted``, some of the names ``CONSTRAINTS``. If ``wanted`` has some of ``RESIDUALS``, fun returns
    residuals, and the objective is their ``loss``.
    """
    args = args if isinstance(args, tuple) else (args,)
    functions = fun, jac, hess, hessp
    rest = constraints, has_aux, gradient, wanted, loss
    try:
        return _build(functions, x0, args, *rest, _is_argument)
    except Exception as error:
        # Numbers in args, or bound by functools.partial, cannot be traced if Python control flow depends on them (a
        # range, an axis, a shape). Take all numbers as constants then, and trace a second time.
        if any(map(is_number, jax.tree.leaves((_taken_apart(fun), args)))):
            with contextlib.suppress(Exception):
                return _build(functions, x0, args, *rest, is_array)
        if isinstance(x0, (list, tuple)) and any(isinstance(part, (list, tuple)) for part in x0):
            error.add_note("x0 is a list of lists, so fun receives it as a pytree. Write jnp.array(x0) for an array.")
        if isinstance(args[0] if len(args) == 1 else None, list):
            error.add_note(
                "args is a list, which is one argument of fun, as in SciPy. Write a tuple: args=(a,), (a, b)."
            )
        words = explained(error, "fun", _on_the_host("gradient"))
        if words is None:
            raise
        raise words from error


def _on_the_host(derivative: str) -> str:
    """What to do with a function that needs NumPy."""
    return f"call the other library in jax.pure_callback and give the {derivative} as jac"


@contextlib.contextmanager
def _of_constraint(i: int) -> Iterator[None]:
    """Names the constraint in the errors of its functions."""
    name = f"constraints[{i}]"
    try:
        with in_words(f"{name}: fun", _on_the_host("Jacobian")):
            yield
    except Exception as error:
        error.add_note(f"The error is that of {name}.")
        raise


def _build(
    functions: tuple[Any, ...], x0: PyTree, args: tuple[Any, ...], constraints: Constraints | None, has_aux: bool,
    gradient: bool, wanted: frozenset[str], loss: Loss, is_argument: Callable[[Any], bool],
) -> Problem:  # fmt: skip
    leaves, fixed, x_static = partition(canonical_x0(x0), is_inexact, is_array)
    if not leaves and (x0 is None or x_static.leaves()):
        raise TypeError(f"x0={x0!r}: it has nothing that can vary; give numbers or arrays of numbers")
    _, jac, hess, hessp = functions
    of_rows = () if constraints is None else constraints.parts
    # args are last: minimize_many counts on it.
    # The function of a loss is one of the user's, and its scale a number that may change.
    parts = (
        *map(_taken_apart, functions), () if loss.is_linear else tuple(loss), tuple(map(_part_taken_apart, of_rows)),
        jax.tree.map(as_argument, args),
    )  # fmt: skip
    arrays, static = partition(parts, is_argument)
    second = "hess" if hess is not None else "hessp" if hessp is not None else None
    second = None if "lagrangian_hessian" in wanted else second
    settings = gradient, jac is None, jac is True, has_aux, second, wanted, loss.is_linear
    trace = traces.find(static, x_static, (leaves, fixed, arrays), settings, _trace)
    variables = Variables(leaves, wide=trace.value_dtype)
    limits = None if constraints is None else rows(constraints, trace.shapes, variables)
    return Problem(trace, variables, x_static, leaves, fixed, arrays, is_argument, limits)


def _trace(static: Static, x_static: Static, inputs: tuple[Any, ...], settings: tuple[Any, ...]) -> Trace:
    gradient, by_ad, with_grad, has_aux, second, wanted, is_linear = settings
    of_residuals, constrained = bool(wanted & RESIDUALS), bool(wanted & CONSTRAINTS)
    if not by_ad and "gauss_newton" in wanted:
        raise ValueError(
            "jac: this method forms no Jacobian, but products with it by automatic differentiation; omit jac, or take "
            "method='levenberg_marquardt'"
        )
    if of_residuals and with_grad:
        raise ValueError("jac=True: fun returns residuals here; give jac(x, *args), their Jacobian, or omit it")
    aux_box, shapes_box, pull_box = [], [], list[Any]()

    def value_and_grad(leaves: Any, fixed: Any, arrays: Any) -> tuple[Any, Any, list[jax.Array], list[jax.Array]]:
        fun, jac, _, _, loss, parts, args = static.combine(arrays)

        def objective(leaves: Any) -> tuple[jax.Array, tuple[Any, Any, list[jax.Array]]]:
            out = fun(x_static.combine(leaves, fixed), *args)
            (value, aux), grad = _split(out, with_grad, has_aux)
            if of_residuals:
                r, of_r = as_vector(value), LINEAR if is_linear else Loss(*loss)
                return of_r.of(r), (aux, grad, [r] if of_r.is_linear else [r, *of_r.weights(r)])
            return _as_scalar(value, smooth=gradient and by_ad), (aux, grad, [])

        if not gradient:
            (value, (aux, _, r)), grad = objective(leaves), list[Any]()
        elif by_ad or of_residuals:
            (value, (aux, _, r)), grad = jax.value_and_grad(objective, has_aux=True)(leaves)
        else:
            value, (aux, grad, r) = objective(leaves)
            if not with_grad:
                grad = _by_hand("jac", jac, x_static.combine(leaves, fixed), *args)
            grad = _checked_gradient(grad, leaves, x_static)
        aux, aux_static = partition(aux, lambda leaf: is_array(leaf) or is_number(leaf))
        aux_box.append(aux_static)
        at_x = lambda leaves: x_static.combine(leaves, fixed)
        shapes = []
        for i, part in enumerate(parts):
            with _of_constraint(i):
                shapes.append(shape_of(part, at_x, leaves))
        shapes_box.append(tuple(shapes))
        of_rows, linear = _of_rows(parts, at_x, leaves, wanted) if constrained else ([], ())
        linear, tree = jax.tree.flatten(linear)
        pull_box.append(tree)
        return value, grad, [*r, *of_rows, *linear], [jnp.asarray(leaf) for leaf in aux]

    inputs = jax.tree.map(_anywhere, inputs)
    closed, shapes = jax.make_jaxpr(value_and_grad, return_shape=True)(*inputs)
    count = len(inputs[0])
    flaw = dependence.flaw(closed.jaxpr, count, 1 + count if gradient else 1, gradient and by_ad)
    signature, constants, with_rules = signed(closed, *jax.tree.leaves(inputs))
    # Who looks for a feasible point gives a constant.
    flaw = None if constrained else flaw
    trace = Trace(signature, constants, with_rules, shapes[0].dtype, aux_box[-1], shapes=shapes_box[-1], flaw=flaw)
    if of_residuals:
        if shapes[2][0].size == 1 and Variables(inputs[0]).size > 1:
            trace = trace._replace(flaw=_ONE_RESIDUAL)
        trace, at = trace._replace(layout=Layout(r=1 if is_linear else 3)), 1 + count if gradient else 1
        if "gauss_newton" in wanted:
            return _with_gauss_newton(trace, inputs, at)
        return _with_jacobian(trace, static, x_static, inputs, (by_ad, at))
    if wanted:
        trace = _with_pull_traced(trace, wanted, pull_box[-1], inputs[0], shapes[2])
    if "lagrangian_hessian" in wanted:
        gradient_of = lambda *given: Variables(given[0]).ravel([g.conj() for g in value_and_grad(*given)[1]])
        return _with_lagrangian(trace, gradient_of, static, x_static, inputs)
    return trace if second is None else _with_second(trace, static, x_static, inputs, second)


def _of_rows(
    parts: Sequence[Part], at_x: Callable[..., Any], leaves: Any, wanted: frozenset[str]
) -> tuple[list[jax.Array], Any]:
    """([c] or [c, J], the linear map u -> J^T u as a pytree): of the derivatives only what is wanted."""
    given = parts, at_x, Variables(leaves), leaves
    none = jnp.zeros(0, given[2].dtype)
    of_rows = joined(*given) if "constraint_jacobian" in wanted else list[jax.Array]()
    if wanted & PULLS:
        c, pulls = with_pulls(*given)
        return of_rows or [c], pulls
    return of_rows or [jnp.concatenate([none, *(values(part, *given[1:]) for part in parts)])], ()


def _with_pull_traced(
    trace: Trace, wanted: frozenset[str], tree: Any, leaves: Any, outputs: Sequence[jax.ShapeDtypeStruct]
) -> Trace:
    """The trace with u -> J^T u added, a function of the arrays of the linear map, the last ``outputs``, and of u."""
    J = int("constraint_jacobian" in wanted)
    linear = outputs[1 + J :]
    trace = trace._replace(layout=Layout(0, 1, J, len(linear)))
    if not wanted & PULLS:
        return trace
    pull = lambda linear, u: pulled(jax.tree.unflatten(tree, linear), trace.shapes, Variables(leaves), u)
    inputs = list(linear), outputs[0]
    closed = signed(jax.make_jaxpr(pull)(*inputs), *jax.tree.leaves(inputs))
    return trace._replace(pull=closed.signature, pull_constants=closed.constants)


def _with_jacobian(
    trace: Trace, static: Static, x_static: Static, inputs: tuple[Any, ...], settings: tuple[bool, int]
) -> Trace:
    """The trace with the Jacobian of the residuals added: a function of fun's constants, of x and of the other arrays.

    Args:
      settings: whether it is automatic, and which output of the trace the residuals are.
    """
    by_ad, at = settings
    evaluate = trace.with_rules or trace.signature

    def of(constants: Any, leaves: Any, fixed: Any, arrays: Any) -> jax.Array:
        residuals = lambda leaves: evaluate(*constants, *leaves, *jax.tree.leaves((fixed, arrays)))[at]
        if by_ad:
            return jacobian(residuals, leaves)
        _, jac, *_, args = static.combine(arrays)
        given = _by_hand("jac", jac, x_static.combine(leaves, fixed), *args)
        return by_hand(given, jax.eval_shape(residuals, leaves), leaves)

    inputs = jax.tree.map(_anywhere, (trace.constants, *inputs))
    jaxpr = jax.make_jaxpr(of)(*inputs)
    check_derivatives(jaxpr.jaxpr, [True], "the Jacobian", _NO_JACOBIAN)
    closed = signed(jaxpr, *jax.tree.leaves(inputs))
    return trace._replace(jacobian=closed.signature, jacobian_constants=closed.constants)


def _with_gauss_newton(trace: Trace, inputs: tuple[Any, ...], at: int) -> Trace:
    """The trace with the product J^T J p in place of ``hessp``; the residuals are the output ``at`` of the trace."""
    evaluate = trace.with_rules or trace.signature

    def product(leaves: Any, along: Any, fixed: Any, arrays: Any) -> Any:
        outputs = lambda leaves: evaluate(*trace.constants, *leaves, *jax.tree.leaves((fixed, arrays)))[at:]
        residuals = lambda leaves: outputs(leaves)[0]
        _, change = jax.jvp(residuals, (leaves,), (along,))
        _, pull = jax.vjp(residuals, leaves)
        # A loss has weights: of r, and of the rows of J.
        row = 1 if trace.layout.r == 1 else outputs(leaves)[2].astype(change.dtype)
        return pull(row * row * change)[0]

    leaves, *rest = jax.tree.map(_anywhere, inputs)
    jaxpr = jax.make_jaxpr(product)(leaves, leaves, *rest)
    check_derivatives(jaxpr.jaxpr, [True] * len(leaves), "products with the Jacobian", _NO_JACOBIAN)
    closed = signed(jaxpr, *jax.tree.leaves((leaves, leaves, *rest)))
    return trace._replace(by_hand="hessp", second=closed.signature, second_constants=closed.constants)


def _anywhere(leaf: Any) -> Any:
    """The leaf without its sharding: the same trace then serves data on any devices."""
    if not isinstance(leaf, jax.Array) or isinstance(leaf, jax.core.Tracer) or typed_sharding(leaf):
        return leaf
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, weak_type=getattr(leaf, "weak_type", False))


def _with_second(trace: Trace, static: Static, x_static: Static, inputs: tuple[Any, ...], second: str) -> Trace:
    """The trace with ``hess`` or ``hessp`` added: a function of x, of a p like x, and of the other arrays."""

    def derivative(leaves: Any, along: Any, fixed: Any, arrays: Any) -> Any:
        _, _, hess, hessp, _, _, args = static.combine(arrays)
        x = x_static.combine(leaves, fixed)
        if second == "hess":
            return as_matrix(_by_hand("hess", hess, x, *args), leaves, x_static)
        product = _by_hand("hessp", hessp, x, x_static.only(along), *args)
        return _checked_gradient(product, leaves, x_static, "hessp", "product")

    leaves, *rest = inputs
    inputs = leaves, leaves, *rest
    closed = signed(jax.make_jaxpr(derivative)(*inputs), *jax.tree.leaves(inputs))
    return trace._replace(by_hand=second, second=closed.signature, second_constants=closed.constants)


def _with_lagrangian(
    trace: Trace, gradient_of: Callable[..., Any], static: Static, x_static: Static, inputs: tuple[Any, ...]
) -> Trace:
    """The trace with the Hessian of f + v . c added: a function of x, of v, and of the other arrays."""

    def hessian(leaves: Any, v: Any, fixed: Any, arrays: Any) -> jax.Array:
        _, _, hess, _, _, parts, args = static.combine(arrays)
        at_x, variables = lambda leaves: x_static.combine(leaves, fixed), Variables(leaves)
        H = hessian_of_rows(parts, trace.shapes, at_x, variables, leaves, v)
        if hess is not None:
            return H + as_matrix(_by_hand("hess", hess, at_x(leaves), *args), leaves, x_static)
        return H + hessian_of(lambda leaves: gradient_of(leaves, fixed, arrays), variables, leaves)

    leaves, *rest = inputs
    dtype = Variables(leaves).dtype
    v = jax.ShapeDtypeStruct((sum(shape.size for shape in trace.shapes),), dtype)
    inputs = leaves, v, *rest
    try:
        jaxpr = jax.make_jaxpr(hessian)(*inputs)
    except TypeError as error:
        if "custom_vjp" not in str(error):
            raise
        raise TypeError(
            "fun or a constraint is a custom_vjp function, which has no second derivatives. Give hess='bfgs': the "
            "method then learns them from gradients"
        ) from error
    closed = signed(jaxpr, *jax.tree.leaves(inputs))
    return trace._replace(lagrangian=closed.signature, lagrangian_constants=closed.constants)


def with_second(problem: Problem, products: bool) -> Problem:
    """The problem with the second derivatives that a method asks for: as it is, or fun's own rules applied.

    Where rules are part of no signature, fun is differentiated here, and not inside of the loop.

    Args:
      products: whether the method asks for products with the Hessian, not for the matrix.
    """
    trace = problem.trace
    with_rules = trace.with_rules
    if with_rules is None or trace.second is not None:
        return problem

    def derivative(constants: Any, leaves: Any, along: Any, *rest: Any) -> Any:
        evaluate = lambda leaves: with_rules(*constants, *leaves, *rest)
        outputs, changes = jax.jvp(evaluate, (leaves,), (along,))
        return outputs, inexact(changes)

    rest = jax.tree.leaves((problem.fixed, problem.arrays))
    inputs = jax.tree.map(_anywhere, (trace.constants, problem.leaves, problem.leaves, *rest))
    jaxpr = jax.make_jaxpr(derivative)(*inputs)
    # The change of the value, the first one, is compiled too where products are wanted, though no method needs it.
    count = len(with_rules.outputs)
    asked = [i >= count + (0 if products else 1) for i in range(len(jaxpr.jaxpr.outvars))]
    check_derivatives(jaxpr.jaxpr, asked, "second derivatives", _NO_SECOND)
    closed = signed(jaxpr, *jax.tree.leaves(inputs))
    return problem._replace(trace=trace._replace(second=closed.signature, second_constants=closed.constants))


def with_products(problem: Problem) -> Problem | None:
    """:func:`with_second` for products; None where the gradient of fun has no derivatives."""
    trace = problem.trace
    if trace.with_rules is None:
        known = programs.program((with_products, trace.signature), lambda: _has_tangents(problem))
        return problem if known else None
    try:
        return with_second(problem, products=True)
    except Exception:  # rules are the user's code, and JAX raises errors of many kinds
        return None


def _has_tangents(problem: Problem) -> bool:
    """Whether JAX has forward derivatives of all that the trace of fun does with x."""
    trace, rest = problem.trace, jax.tree.leaves((problem.fixed, problem.arrays))

    def tangents(leaves: Any, constants: Any, rest: Any) -> Any:
        outputs = lambda leaves: trace.signature(*constants, *leaves, *rest)
        return inexact(jax.jvp(outputs, (leaves,), (leaves,))[1])

    try:
        jax.eval_shape(tangents, *jax.tree.map(_anywhere, (problem.leaves, trace.constants, rest)))
    except Exception:  # JAX and its extensions raise errors of many kinds
        return False
    return True


def inexact(leaves: Any) -> list[Any]:
    """Those that have derivatives."""
    return [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]


def as_argument(leaf: Any) -> Any:
    """An array-like of another library as an array; anything else unchanged."""
    if not isinstance(leaf, (jax.Array, np.generic)) and hasattr(leaf, "__array__"):
        leaf = native(np.asarray(leaf))
    return leaf


def _is_argument(leaf: Any) -> bool:
    return is_array(leaf) or is_number(leaf)


def _taken_apart(fun: Any) -> Any:
    """A ``functools.partial`` as a pytree, so that its function and its bound arguments are separate leaves."""
    if isinstance(fun, functools.partial) and not isinstance(fun, jax.tree_util.Partial):
        return jax.tree_util.Partial(fun.func, *fun.args, **fun.keywords)
    return fun


def _part_taken_apart(part: Part) -> Part:
    fun, jac, hess, args, A = part
    return Part(_taken_apart(fun), _taken_apart(jac), _taken_apart(hess), jax.tree.map(as_argument, args), A)


def _by_hand(name: str, derivative: Callable[..., Any], *args: Any) -> Any:
    """The value of the user's own derivative."""
    with in_words(name, "omit it: automatic differentiation gives the derivatives"):
        return derivative(*args)


def _split(out: Any, with_grad: bool, has_aux: bool) -> tuple[Any, Any]:
    """The output of fun as ((value, aux), grad)."""
    expected = "((value, aux), gradient)" if has_aux else "(value, gradient)"
    grad = None
    if with_grad:
        out, grad = _pair(out, "jac=True", expected)
    return (_pair(out, "has_aux=True", "(value, aux)") if has_aux else (out, None)), grad


def _pair(out: Any, setting: str, expected: str) -> Any:
    if not (isinstance(out, (tuple, list)) and len(out) == 2):
        size = f" of {len(out)}" if isinstance(out, (tuple, list)) else ""
        kind = "single number" if hasattr(out, "dtype") and not np.shape(out) else type(out).__name__
        raise TypeError(f"fun: with {setting} it must return {expected}, not a {kind}{size}")
    return out


def _as_scalar(value: Any, smooth: bool) -> jax.Array:
    """The objective as a real scalar; an integer is an error if ``smooth`` is true."""
    if isinstance(value, (tuple, list)) or not (is_number(value) or hasattr(value, "dtype")):
        raise TypeError(
            f"fun: it must return one number, not {type(value).__name__}"
            " (has_aux=True if it returns (value, aux); jac=True if it returns (value, gradient))"
        )
    whole = not is_number(value) and jnp.issubdtype(value.dtype, jnp.integer)
    value = jnp.asarray(value)
    if value.size != 1:
        raise ValueError(f"fun: it must return one number, not an array of shape {value.shape}")
    if jnp.iscomplexobj(value):
        raise TypeError(f"fun: it must return a real number, not {value.dtype}; take its real part or modulus")
    if value.dtype == bool:
        raise TypeError("fun: it must return a real number, not bool")
    if smooth and whole:
        raise TypeError(
            f"fun: it returns a whole number ({value.dtype}), which has no gradient; return a float, or use "
            "'nelder_mead' or 'powell'"
        )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        value = value.astype(jnp.result_type(float))
    return value.reshape(())


def _checked_gradient(
    grad: PyTree, leaves: Sequence[jax.Array], x_static: Static, name: str = "jac", noun: str = "gradient"
) -> list[jax.Array]:
    """The leaves of the user's gradient or product, checked, in the dtypes of x0."""
    try:
        if jax.tree_util.treedef_is_leaf(x_static.treedef):
            grad = jnp.asarray(grad)  # a list of numbers, as in SciPy
        grads = [jnp.asarray(g) for g in x_static.pick(grad)]
    except (ValueError, TypeError) as error:
        raise ValueError(
            f"{name}: a {noun} built as {jax.tree.structure(grad)} ({type(grad).__name__}) for x0 built as "
            f"{x_static.treedef}"
        ) from error
    checked = []
    for leaf, g in zip(leaves, grads):
        if g.shape != leaf.shape:
            raise ValueError(f"{name}: a {noun} of shape {g.shape} for a part of x0 of shape {leaf.shape}")
        if jnp.iscomplexobj(g) and not jnp.iscomplexobj(leaf):
            raise TypeError(f"{name}: a complex {noun} ({g.dtype}) for a real part of x0 ({leaf.dtype})")
        checked.append(g.astype(leaf.dtype))
    return checked
