"""Many problems on a few lanes: a lane that has ended hands over its result and takes the next problem."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from jaxmin._core.status import Status
from jaxmin._driver.solution import bounded

# Refill when 1/16 of the lanes are idle: a refill costs about as much as a step.
_WAITING = 16


class Plan(NamedTuple):
    """What is known of the work before it is traced."""

    tree: Any  # of the inputs of a solve: (leaves of x0, inputs, limits)
    every: tuple  # of its leaves: how many problems in a row share a row of that array; 0: all share the array
    variables: Any  # the ``Variables`` of x0
    lanes: int
    curvature: bool  # it is part of the result
    in_order: bool  # the rows come in the order of the problems; else as they end, with their numbers
    mesh: Any  # the devices between which problems and lanes are split, or None


class Lanes(NamedTuple):
    """The lanes between two steps; each leaf has the leading axis [lanes]."""

    carry: Any  # the ``Carry`` of each solve
    fed: Any  # the inputs that differ between problems
    number: Any  # [lanes] int32: which problem it is; -1 for none


class Progress(NamedTuple):
    """All that changes while problems are handed out."""

    lanes: Lanes
    taken: Any  # [] int32: problems that lanes have taken
    numbers: Any  # [rows] int32: whose row it is; -1 for none yet
    rows: Any  # the results: each leaf [rows, ...]
    ended: Any  # [] int32: solves that have ended
    steps: Any  # [] int32


def worker(plan, begin, step_of_lane, end):
    """The function that works through problems.

    Args:
      plan: a ``Plan``.
      begin: (leaves, inputs) -> ``Carry``.
      step_of_lane: (carry, inputs, limits) -> ``Carry``, which leaves one that has ended as it is.
      end: carry -> (leaves of x, those of the gradient, ``Solution``).

    Returns:
      (lanes, problems, shared, first, count, last) -> (lanes, numbers, rows, steps): from ``Lanes``, or None, and
      ``count`` problems, numbered from ``first``, to the lanes with what is still on them, the results by number, and
      how many steps were made. Where ``last`` is true, nothing is left on the lanes.
    """

    def joined(fed, shared):
        fed, shared = iter(fed), iter(shared)
        return jax.tree.unflatten(plan.tree, [next(fed if every else shared) for every in plan.every])

    def work(lanes, problems, shared, first, count, last):
        capacity = _count(plan, problems)
        on_lanes = lambda function: jax.vmap(lambda carry, fed: function(carry, *joined(fed, shared)))
        start = jax.vmap(lambda fed: begin(*joined(fed, shared)[:2]))
        step = on_lanes(lambda carry, leaves, *fed: step_of_lane(carry, *fed))
        finish = on_lanes(lambda carry, leaves, inputs, limits: _result(plan, end(carry), inputs.box))

        def take(index):
            return [leaf[index // every] for leaf, every in zip(problems, filter(None, plan.every))]

        if lanes is None:
            none = jnp.zeros(plan.lanes, jnp.int32)
            fed = take(none)
            lanes = Lanes(start(fed)._replace(status=none + Status.CONVERGED), fed, none - 1)
        capacity += 0 if plan.in_order else plan.lanes
        rows = jax.eval_shape(finish, lanes.carry, lanes.fed)
        rows = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape[1:]), leaf.dtype), rows)
        zero = jnp.zeros((), jnp.int32)
        state = Progress(lanes, zero, jnp.full(capacity, -1, jnp.int32), rows, zero, zero)

        def hand_over(state):
            carry, fed, number = state.lanes
            idle = carry.status != Status.RUNNING
            due = idle & (number >= 0)
            slot = number - first if plan.in_order else state.ended + jnp.cumsum(due, dtype=jnp.int32) - 1
            slot = jnp.where(due, slot, capacity)
            put = lambda rows, row: rows.at[slot].set(row, mode="drop")
            results = finish(carry, fed)

            index = state.taken + jnp.cumsum(idle, dtype=jnp.int32) - 1
            takes = idle & (index < count)
            new = take(jnp.where(takes, index, 0))
            fed = _where(takes, new, fed)
            carry = _where(takes, start(new), carry)
            left = jnp.where(idle, -1, number)
            return state._replace(
                lanes=Lanes(carry, fed, jnp.where(takes, first + index, left)),
                taken=state.taken + jnp.sum(takes, dtype=jnp.int32),
                numbers=put(state.numbers, number),
                rows=jax.tree.map(put, state.rows, results),
                ended=state.ended + jnp.sum(due, dtype=jnp.int32),
            )

        def round_of(state):
            state = hand_over(state)
            fed = state.lanes.fed
            patience = jnp.where((state.taken < count) | ~last, plan.lanes // _WAITING, plan.lanes - 1)
            goes_on = lambda both: jnp.sum(both[0].status != Status.RUNNING) <= patience
            carry, steps = lax.while_loop(
                goes_on, lambda both: (step(both[0], fed), both[1] + 1), (state.lanes.carry, state.steps)
            )
            return state._replace(lanes=state.lanes._replace(carry=carry), steps=steps)

        def goes_on(state):
            return (state.taken < count) | (last & jnp.any(state.lanes.number >= 0))

        state = lax.while_loop(goes_on, round_of, state)
        return state.lanes, state.numbers, state.rows, state.steps

    return work if plan.mesh is None else _on_devices(work, plan.mesh)


def _on_devices(work, mesh):
    """The same, problems and lanes split between the devices; each of them has its own first, count and steps."""
    split, whole = PartitionSpec(*mesh.axis_names), PartitionSpec()

    def on_one(lanes, problems, shared, first, count, last):
        lanes, numbers, rows, steps = work(lanes, problems, shared, first[0], count[0], last)
        return lanes, numbers, rows, steps[None]

    specs = split, split, whole, split, split, whole
    return jax.shard_map(on_one, mesh=mesh, in_specs=specs, out_specs=split, check_vma=False)


def _count(plan, problems):
    """How many problems these arrays hold."""
    return problems[0].shape[0] * next(filter(None, plan.every))


def _result(plan, solved, box):
    x, jac, solution = solved
    others = solution.others if plan.curvature else solution.others._replace(curvature=None)
    return x, jac, solution._replace(x=None, g=None, others=others), bounded(plan.variables, box, solution)


def _where(lanes, new, old):
    """Of each leaf [lanes, ...] the rows of the new where the condition holds."""

    def one(u, v):
        return jnp.where(lanes.reshape(lanes.shape + (1,) * (u.ndim - 1)), u, v)

    return jax.tree.map(one, new, old)
