"""Many problems on a few lanes: a lane that has ended hands over its result and takes the next problem."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from jaxmin._core.status import Status
from jaxmin._driver.batch import strongly_typed
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
    """All that changes while the problems of a chunk are handed out."""

    lanes: Lanes
    taken: Any  # [] int32: problems that lanes have taken
    numbers: Any  # [rows] int32: whose row it is; -1 for none yet
    rows: Any  # the results: each leaf [rows, ...]
    ended: Any  # [] int32: solves that have ended
    steps: Any  # [] int32


class Turn(NamedTuple):
    """What one call of the program is to do."""

    first: Any  # [] int32: the number of the first problem of the chunk
    count: Any  # [] int32: how many there are
    last: Any  # [] bool: it is the last chunk: nothing is left on the lanes
    goes_on: Any  # [] bool: with the chunk of the call before
    most: Any  # [] int32: the call returns after so many steps, whatever is left


def opener(plan, *parts):
    """The first of :func:`_functions`."""
    return _functions(plan, *parts)[0]


def worker(plan, *parts):
    """The second of :func:`_functions`."""
    return _functions(plan, *parts)[1]


def _functions(plan, begin, step_of_lane, end):
    """The functions that work through problems.

    Args:
      plan: a ``Plan``.
      begin: (leaves, inputs) -> ``Carry``.
      step_of_lane: (carry, inputs, limits) -> ``Carry``, which leaves one that has ended as it is.
      end: carry -> (leaves of x, those of the gradient, ``Solution``).

    Returns:
      Two functions of arrays: (problems, shared) -> ``Progress`` before the first call, with nothing on the lanes; and
      (``Progress``, problems, shared, ``Turn``) -> (``Progress``, whether the chunk is done). What is on the lanes when
      a chunk is done goes on with the next one.
    """

    def joined(fed, shared):
        fed, shared = iter(fed), iter(shared)
        return jax.tree.unflatten(plan.tree, [next(fed if every else shared) for every in plan.every])

    def on_lanes(function, shared):
        return jax.vmap(lambda carry, fed: function(carry, *joined(fed, shared)))

    def start(fed, shared):
        return jax.vmap(lambda fed: begin(*joined(fed, shared)[:2]))(fed)

    def finish(carry, fed, shared):
        result = lambda carry, leaves, inputs, limits: _result(plan, end(carry), inputs.box)
        return on_lanes(result, shared)(carry, fed)

    def take(problems, index):
        return [leaf[index // every] for leaf, every in zip(problems, filter(None, plan.every))]

    def opened(problems, shared):
        none, zero = jnp.zeros(plan.lanes, jnp.int32), jnp.zeros((), jnp.int32)
        fed = take(problems, none)
        lanes = Lanes(start(fed, shared)._replace(status=none + Status.CONVERGED), fed, none - 1)
        capacity = _count(plan, problems) + (0 if plan.in_order else plan.lanes)
        rows = jax.eval_shape(finish, lanes.carry, lanes.fed, shared)
        rows = jax.tree.map(lambda leaf: jnp.zeros((capacity, *leaf.shape[1:]), leaf.dtype), rows)
        return Progress(lanes, zero, jnp.full(capacity, -1, jnp.int32), rows, zero, zero)

    def work(state, problems, shared, turn):
        first, count, last, goes_on_with_chunk, most = turn
        capacity = state.numbers.size
        step = on_lanes(lambda carry, leaves, *fed: step_of_lane(carry, *fed), shared)
        keeps = lambda u, new: jnp.where(goes_on_with_chunk, u, new)
        state = state._replace(
            taken=keeps(state.taken, 0), numbers=keeps(state.numbers, -1), ended=keeps(state.ended, 0)
        )
        most = state.steps + most

        def hand_over(state):
            carry, fed, number = state.lanes
            idle = carry.status != Status.RUNNING
            due = idle & (number >= 0)
            slot = number - first if plan.in_order else state.ended + jnp.cumsum(due, dtype=jnp.int32) - 1
            slot = jnp.where(due, slot, capacity)
            put = lambda rows, row: rows.at[slot].set(row, mode="drop")
            results = finish(carry, fed, shared)

            index = state.taken + jnp.cumsum(idle, dtype=jnp.int32) - 1
            takes = idle & (index < count)
            new = take(problems, jnp.where(takes, index, 0))
            fed = _where(takes, new, fed)
            carry = _where(takes, start(new, shared), carry)
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
            goes_on = lambda both: (jnp.sum(both[0].status != Status.RUNNING) <= patience) & (both[1] < most)
            carry, steps = lax.while_loop(
                goes_on, lambda both: (step(both[0], fed), both[1] + 1), (state.lanes.carry, state.steps)
            )
            return state._replace(lanes=state.lanes._replace(carry=carry), steps=steps)

        def is_left(state):
            return (state.taken < count) | (last & jnp.any(state.lanes.number >= 0))

        state = lax.while_loop(lambda state: is_left(state) & (state.steps < most), round_of, state)
        # As the next call takes it: another type would be compiled again.
        lanes = state.lanes._replace(carry=strongly_typed(state.lanes.carry))
        return state._replace(lanes=lanes), ~is_left(state)

    return (opened, work) if plan.mesh is None else _on_devices(opened, work, plan.mesh)


def _on_devices(opened, work, mesh):
    """The same, problems and lanes split between the devices; each of them has its own first, count and numbers."""
    split, whole = PartitionSpec(*mesh.axis_names), PartitionSpec()
    numbers = "taken", "ended", "steps"

    def with_axis(state):
        return state._replace(**{name: getattr(state, name)[None] for name in numbers})

    def without_axis(state):
        return state._replace(**{name: getattr(state, name)[0] for name in numbers})

    def opened_on_one(problems, shared):
        return with_axis(opened(problems, shared))

    def work_on_one(state, problems, shared, turn):
        turn = turn._replace(first=turn.first[0], count=turn.count[0])
        state, done = work(without_axis(state), problems, shared, turn)
        return with_axis(state), done[None]

    on_each = functools.partial(jax.shard_map, mesh=mesh, out_specs=split, check_vma=False)
    turns = Turn(split, split, whole, whole, whole)
    return (
        on_each(opened_on_one, in_specs=(split, whole)),
        on_each(work_on_one, in_specs=(split, split, whole, turns)),
    )


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
