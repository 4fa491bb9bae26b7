"""L-BFGS, and where it creeps or is stuck, Newton's method in a trust region."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmin._cache.builder import builder
from jaxmin._core import vector as vec
from jaxmin._core.batch_cond import anywhere
from jaxmin._core.box import Unbounded
from jaxmin._core.protocol import Iterate, LineSearch, Method, Rest, Usual
from jaxmin._core.status import STUCK, Status, is_stuck
from jaxmin.methods._descend import DescentState
from jaxmin.methods.lbfgs import lbfgs
from jaxmin.methods.trust_ncg import trust_ncg

# Up to so many variables the preconditioner is a band of the Hessian: it takes about 90 numbers for each.
_BANDED_MAX = 100_000
# L-BFGS creeps if within ``patience`` iterations neither the gradient nor f has fallen by this part of it.
_FALLS = 0.9


class Mark(NamedTuple):
    """An iterate of L-BFGS to look back at."""

    nit: Any  # [] int32
    f: Any  # [] the lowest value up to there
    g: Any  # [] the smallest norm of the gradient up to there

    @classmethod
    def at(cls, state):
        """The mark at the iterate of L-BFGS."""
        noise = state.floor.noise
        return cls(state.nit, noise.f_lowest, noise.g_lowest)

    def has_fallen(self, now):
        """[] bool: f or the gradient has fallen since."""
        return (now.f <= self.f - _FALLS * jnp.abs(self.f)) | (now.g <= (1 - _FALLS) * self.g)


_record: Any = NamedTuple  # a checker of types knows no fields that are computed
# The state of L-BFGS, and the mark.
Watched = _record("Watched", [(name, Any) for name in (*DescentState._fields, "mark")])


class LBFGSNewtonState(NamedTuple):
    trial: Any  # like params
    iterate: Iterate
    accepted: Any  # [] bool
    nit: Any  # [] int32
    status: Any  # [] int32
    first: Any  # the state of L-BFGS
    second: Any  # that of Newton's method
    newton: Any  # [] bool: Newton's method goes on

    @property
    def along(self):
        """Like params: the direction of the next product."""
        return self.second.along

    @property
    def stays(self):
        """[] bool: the next step evaluates a product at the iterate."""
        return self.newton & self.second.stays


@builder(
    aliases=("lbfgs-newton",),
    spellings=lbfgs.declared.spellings,
    converters=lbfgs.declared.converters,
)
def lbfgs_newton(memory: int | None = None, linesearch: LineSearch | str | None = None, patience: int = 300) -> Method:
    r"""L-BFGS, and where it creeps or is stuck, Newton's method in a trust region from there on.

    L-BFGS creeps if within ``patience`` iterations neither f nor the norm of the gradient has fallen by nine tenths.
    The last pairs then say too little about the Hessian: its curvatures are spread over many orders of magnitude.
    :func:`~jaxmin.trust_ncg` goes on from the last iterate, with products of the Hessian. Its preconditioner is
    "banded", or "diagonal" for more than 100,000 variables and for an x that is spread over devices. L-BFGS is
    stuck where rounding or a failing line search stops it. A float32 solve that is called from Python, without a
    callback, then goes on only if it has not converged to the precision of f. Before that only first derivatives are
    evaluated. In a batch each lane changes by itself.

    ``method="auto"`` is this method where neither ``hess`` nor ``hessp`` is given.

    Args:
      memory: the number of pairs, >= 1; None (default) is all pairs for up to 16 variables, and 10 for more.
      linesearch: of L-BFGS: a ``LineSearch``, or the name of a search; "backtracking" by default.
      patience: iterations of L-BFGS, >= 1; 300 by default.

    Returns:
      A ``Method``. ``res.nhev`` counts its products, and is 0 where L-BFGS did neither creep nor get stuck;
      ``res.hess_inv`` is that of L-BFGS.

    Raises:
      ValueError: if memory or patience is below 1, and for an unknown search.
      TypeError: for an argument of another type.

    >>> import jax.numpy as jnp, jaxmin
    >>> rosen = lambda x: jnp.sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)
    >>> res = jaxmin.minimize(rosen, [-1.2, 1.0], method="lbfgs_newton")
    >>> bool(res.success), int(res.nhev)
    (True, 0)
    """
    if not patience >= 1:
        raise ValueError(f"patience={patience!r}: give at least 1")
    first = _until_it_creeps(lbfgs(memory, linesearch), patience)
    banded, diagonal = trust_ncg(preconditioner="banded"), trust_ncg(preconditioner="diagonal")

    def second(x):
        one = isinstance(x, jax.Array) and vec.is_small(x.size, _BANDED_MAX) and not vec.typed_sharding(x)
        return banded if one else diagonal

    def begun_at(x):
        return second(x).init(x)

    def init(x, *, box=Unbounded()):
        return _joined(first.init(x, box=box), begun_at(x), jnp.zeros((), bool))

    def update(grad, state, params, /, *, value, hv=None, box=Unbounded(), ended=None, **_):
        waits = jnp.zeros((), bool) if ended is None else ended
        goes, given = state.newton & ~waits, {"value": value, "box": box}

        def lbfgs_step():
            return first.update(grad, state.first, params, ended=waits | state.newton, **given)[1]

        def newton_step():
            new = newtons(grad, state.second, params, hv=hv, **given)
            return _kept(begins, begun_at(one.iterate.x), _kept(~goes, state.second, new))

        one = lax.cond(anywhere(~state.newton), lbfgs_step, lambda: state.first)
        begins = ~waits & ~state.newton & is_stuck(one.status)
        two = lax.cond(anywhere(begins | goes), newton_step, lambda: state.second)
        new = _joined(one, two, state.newton | begins)
        # The loop may have marked a lane as not begun: it waits with what that says.
        iterate, nit = vec.where(waits, (state.iterate, state.nit), (new.iterate, new.nit))
        return vec.sub(new.trial, params), new._replace(iterate=iterate, nit=nit)

    def newtons(grad, state, params, hv=None, **given):
        return second(params).update(grad, state, params, hv=vec.zeros(params) if hv is None else hv, **given)[1]

    def begun(one):
        return _joined(one, begun_at(one.iterate.x), jnp.ones((), bool))

    def rest_update(grad, state, params, /, *, ended=None, **given):
        two = newtons(grad, state.second, params, **given)
        new = _joined(state.first, two if ended is None else _kept(ended, state.second, two), state.newton)
        return vec.sub(new.trial, params), new

    whole = Method(
        init,
        update,
        wants=first.wants | banded.wants | {"rare"},
        inverse_hessian=lambda state: first.inverse_hessian(state.first),
        warm_start=lambda state, H: state._replace(first=first.warm_start(state.first, H)),
        trees=True,
        defaults=first.defaults,
    )
    # The loop may have marked a solve as not begun.
    first_state = lambda state: state.first._replace(iterate=state.iterate, nit=state.nit)
    rest = Rest(whole._replace(update=rest_update), begun, first_state)
    return whole._replace(usual=Usual(first, frozenset(STUCK), rest))


def _until_it_creeps(method, patience):
    """The method, whose search fails where it creeps."""

    def init(x, *, box=Unbounded()):
        state = method.init(x, box=box)
        return Watched(*state, Mark.at(state))

    def update(grad, state, params, /, **given):
        d, new = method.update(grad, DescentState(*state[:-1]), params, **given)
        now = Mark.at(new)
        due = (new.nit >= state.mark.nit + patience) | (state.nit < 0)
        creeps = due & (state.nit >= 0) & ~state.mark.has_fallen(now) & (new.status == Status.RUNNING)
        status = jnp.where(creeps, Status.SEARCH_FAILED, new.status).astype(jnp.int32)
        return d, Watched(*new._replace(status=status), vec.where(due, now, state.mark))

    return method._replace(init=init, update=update)


def _kept(condition, a, b):
    """The state a of Newton's method where the condition holds, else b; always with the preconditioner of b.

    It changes only in a round of products, so that a large array is not selected in each step.
    """
    return vec.where(condition, a._replace(M=None), b._replace(M=None))._replace(M=b.M)


def _joined(one, two, newton):
    """The state of both."""
    # Until Newton's method has seen its start, the last iterate of L-BFGS stands.
    begun = newton & (two.nit >= 0)
    return LBFGSNewtonState(
        trial=vec.where(newton, two.trial, one.trial),
        iterate=vec.where(begun, two.iterate, one.iterate),
        accepted=jnp.where(newton, two.accepted & (two.nit > 0), one.accepted),
        nit=one.nit + jnp.maximum(two.nit, 0),
        status=jnp.where(newton, two.status, one.status).astype(jnp.int32),
        first=one,
        second=two,
        newton=newton,
    )
