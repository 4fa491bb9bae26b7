"""Solvers behind one call: for each library a small adapter that stops all of them by the same rule.

An adapter is ``build(fun, x0, args, limits) -> run``: it compiles what it can, and ``run()`` solves from x0 and
returns a :class:`Found`. A solve ends where the infinity norm of the gradient is within ``limits.gtol``, or
after ``limits.maxiter`` iterations or ``limits.maxfun`` evaluations, for every library alike: where a library
has no such test, its own step is driven by a loop that has. JAX's own BFGS and TensorFlow Probability test the
gradient in this way, but have no limit of evaluations.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jaxopt
import numpy as np
import optax
import optimistix
import scipy.optimize
from jax import lax
from jax.scipy.optimize import minimize as jax_minimize

import jaxmin


class Limits(NamedTuple):
    gtol: float = 1e-5
    maxiter: int = 20_000
    maxfun: int = 100_000


class Found(NamedTuple):
    x: Any
    nit: Any  # iterates accepted after x0
    nfev: Any  # points at which f was evaluated, x0 included


def whole(solve):
    """The adapter of ``solve(fun, x0, limits) -> Found``: all of it, from x0 to the result, in one program.

    ``run.bytes`` is the memory that XLA plans for the program.
    """

    def build(fun, x0, args, limits):
        program = jax.jit(lambda x0, args: solve(lambda x: fun(x, *args), x0, limits)).lower(x0, args).compile()
        run = lambda: program(x0, args)
        run.bytes = planned(program)
        return run

    build.solve = solve  # for those who want a batch of them
    return build


def planned(program):
    """Bytes of the arguments, the results and the temporary arrays of a compiled program."""
    plan = program.memory_analysis()
    return plan.argument_size_in_bytes + plan.output_size_in_bytes + plan.temp_size_in_bytes


def _goes_on(g, nit, nfev, limits):
    return (jnp.max(jnp.abs(g)) > limits.gtol) & (nit < limits.maxiter) & (nfev < limits.maxfun)


def jaxmin_whole(method):
    def solve(fun, x0, limits):
        res = jaxmin.minimize(fun, x0, method=method, options=limits._asdict())
        return Found(res.x, res.nit, res.nfev)

    return whole(solve)


def jaxmin_called(fun, x0, args, limits):
    """As a user calls it: from Python, with arrays."""
    options = limits._asdict()

    def run():
        res = jaxmin.minimize(fun, x0, args, options=options)
        return Found(res.x, res.nit, res.nfev)

    jax.block_until_ready(run())
    return run


@whole
def optax_lbfgs(fun, x0, limits):
    """Its zoom search keeps value and gradient of the new point in the state, where the next step finds them."""
    method = optax.lbfgs()
    value_and_grad = optax.value_and_grad_from_state(fun)
    number = lambda state, name: optax.tree.get(state, name)

    def goes_on(carry):
        _, state, nfev = carry
        nit = number(state, "count")
        return (nit == 0) | _goes_on(number(state, "grad"), nit, nfev, limits)

    def step(carry):
        x, state, nfev = carry
        value, grad = value_and_grad(x, state=state)
        updates, state = method.update(grad, state, x, value=value, grad=grad, value_fn=fun)
        return optax.apply_updates(x, updates), state, nfev + number(state, "num_linesearch_steps")

    x, state, nfev = lax.while_loop(goes_on, step, (x0, method.init(x0), jnp.ones((), int)))
    return Found(x, number(state, "count"), nfev)


@whole
def jaxopt_lbfgs(fun, x0, limits):
    """Its own test is of the 2-norm, so its ``update`` is driven here."""
    method = jaxopt.LBFGS(fun, implicit_diff=False)

    def goes_on(carry):
        _, state = carry
        return _goes_on(state.grad, state.iter_num, state.num_fun_eval, limits)

    x, state = lax.while_loop(goes_on, lambda carry: tuple(method.update(*carry)), (x0, method.init_state(x0)))
    return Found(x, state.iter_num, state.num_fun_eval)


def _optimistix(solver):
    """It tests changes of x and f alone, so its ``step`` is driven here; a step is one evaluation of f."""

    def solve(fun, x0, limits):
        method = solver(rtol=0.0, atol=0.0)
        objective = lambda x, _: (fun(x), None)
        shape = jax.eval_shape(fun, x0)
        state = method.init(objective, x0, None, {}, shape, None, frozenset())
        arrays, static = eqx.partition(state, eqx.is_array)

        def goes_on(carry):
            _, arrays, nfev = carry
            state = eqx.combine(arrays, static)
            # The first accepted step is the evaluation at x0.
            nit = state.num_accepted_steps - 1
            return (nit < 0) | _goes_on(state.f_info.grad, nit, nfev, limits)

        def step(carry):
            x, arrays, nfev = carry
            x, state, _ = method.step(objective, x, None, {}, eqx.combine(arrays, static), frozenset())
            return x, eqx.filter(state, eqx.is_array), nfev + 1

        x, arrays, nfev = lax.while_loop(goes_on, step, (x0, arrays, jnp.zeros((), int)))
        return Found(x, arrays.num_accepted_steps - 1, nfev)

    return whole(solve)


optimistix_bfgs = _optimistix(optimistix.BFGS)
optimistix_lbfgs = _optimistix(optimistix.LBFGS)


@whole
def jax_bfgs(fun, x0, limits):
    options = {"gtol": limits.gtol, "norm": jnp.inf, "maxiter": limits.maxiter}
    res = jax_minimize(fun, x0, method="BFGS", options=options)
    return Found(res.x, res.nit, res.nfev)


def tfp_found(name, value_and_grad, x0, limits):
    """What TensorFlow Probability finds, from one start, or from a batch of them with a batched function.

    It counts an evaluation of a whole batch as one, so a batch has one number of evaluations.
    """
    from tensorflow_probability.substrates import jax as tfp  # here: the other solvers do without it

    res = getattr(tfp.optimizer, name)(
        value_and_grad, x0, tolerance=limits.gtol, x_tolerance=0, f_relative_tolerance=0, max_iterations=limits.maxiter
    )
    return Found(res.position, res.num_iterations, res.num_objective_evaluations)


def _tfp(name):
    return whole(lambda fun, x0, limits: tfp_found(name, jax.value_and_grad(fun), x0, limits))


tfp_lbfgs = _tfp("lbfgs_minimize")
tfp_bfgs = _tfp("bfgs_minimize")


def scipy_lbfgsb(fun, x0, args, limits):
    """SciPy on the host, value and gradient compiled; the test of f's decrease is off."""
    compiled = jax.jit(jax.value_and_grad(fun))

    def value_and_grad(x):
        value, grad = compiled(x, *args)
        return float(value), np.asarray(grad, dtype=float)

    options = {"gtol": limits.gtol, "ftol": 0, "maxiter": limits.maxiter, "maxfun": limits.maxfun}

    def run():
        res = scipy.optimize.minimize(value_and_grad, np.asarray(x0), method="L-BFGS-B", jac=True, options=options)
        return Found(res.x, res.nit, res.nfev)

    jax.block_until_ready(compiled(np.asarray(x0), *args))
    return run


def bare(steps):
    """Not a solver: value and gradient ``steps`` times in one compiled loop, each at a point made from the last."""

    def build(fun, x0, args, limits):
        def loop(x0, args, steps, zero):
            def step(_, carry):
                x, total = carry
                value, grad = jax.value_and_grad(fun)(x, *args)
                return x - zero * grad, total + value

            return lax.fori_loop(0, steps, step, (x0, jnp.zeros((), x0.dtype)))

        inputs = x0, args, jnp.asarray(steps), jnp.zeros((), x0.dtype)
        program = jax.jit(loop).lower(*inputs).compile()
        return lambda: Found(program(*inputs)[0], steps, steps)

    return build


class Solver(NamedTuple):
    build: Any
    most: int = 10**9  # the largest n it is meant for


SOLVERS = {
    "jaxmin lbfgs": Solver(jaxmin_whole("lbfgs")),
    "jaxmin, called from Python": Solver(jaxmin_called),
    "jaxmin bfgs": Solver(jaxmin_whole("bfgs"), most=1000),
    "optax lbfgs": Solver(optax_lbfgs),
    "jaxopt LBFGS": Solver(jaxopt_lbfgs),
    "optimistix LBFGS": Solver(optimistix_lbfgs),
    "optimistix BFGS": Solver(optimistix_bfgs, most=1000),
    "TFP lbfgs": Solver(tfp_lbfgs),
    "TFP bfgs": Solver(tfp_bfgs, most=1000),
    "jax.scipy BFGS": Solver(jax_bfgs, most=1000),
    "scipy L-BFGS-B": Solver(scipy_lbfgsb),
}
