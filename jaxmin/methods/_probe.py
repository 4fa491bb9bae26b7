"""Where the conjugate gradients begin: at the steepest descent, or where the gradient is 0, anywhere."""

import jax
import jax.numpy as jnp

from jaxmin._core.typing import Scalar, Vector

# Where the gradient is 0, the conjugate gradients have found no negative curvature if the residual is below this.
PROBED = 1e-3


def steepest(g: Vector, gnorm: Scalar, probe: Vector) -> Vector:
    """g / |g|; where g is 0, the vector ``probe``, from which the conjugate gradients find negative curvature."""
    return jax.tree.map(lambda u, v: jnp.where(gnorm > 0, (u / gnorm).astype(u.dtype), v), g, probe)
