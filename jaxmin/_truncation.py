"""When conjugate gradients for a Newton step have done enough."""

import jax.numpy as jnp

# A residual below is small far from a minimum; nearer, it must be small beside sqrt |g|, for a superlinear rate.
_RESIDUAL = 0.5
# One below needs no other test, nor one below |g|, where the rate is quadratic already.
_EXACT = 0.01
# The model falls no faster than before where a product gained less than this share of the average.
_SHARE = 0.5


def enough(rr, gnorm, fall, falls, inner):
    r"""Whether to stop: the residual is small, and the model has nearly ceased to fall.

    The residual alone depends on the units of each variable: where they differ much, it is small long before the step
    has moved all of them. The second test does not: :math:`j (1 - m_{j-1} / m_j) \le 1/2` [1, eq. (3.3)].

    Args:
      rr: [] the square of the residual, over that of g.
      gnorm: [] the norm of g.
      fall: [] how far the last product let the model fall.
      falls: [] all of them together.
      inner: [] int32, how many.

    References:
      [1] S. G. Nash and A. Sofer, Operations Research Letters 9 (1990), 219-221.
    """
    residual = jnp.sqrt(rr)
    small = residual <= jnp.minimum(_RESIDUAL, jnp.sqrt(gnorm))
    ceased = inner * fall <= _SHARE * falls
    return (small & ceased) | (residual <= jnp.minimum(_EXACT, gnorm))
