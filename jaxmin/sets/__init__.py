"""Closed convex sets, each given by its projection: ``bounds=`` for first-order methods and transformations.

``minimize(fun, x0, method="gradient_descent", bounds=jaxmin.sets.simplex())`` keeps every point that it evaluates in
the set, up to rounding. A set limits x0 as one vector of all its leaves; ``product`` has a set for each part of a
pytree.

``gradient_descent`` becomes the spectral projected gradient method there. A transformation (of Optax, of
``jaxmin.transforms``) is projected after each update. Other methods take boxes only, ``jaxmin.Bounds``.
"""

from jaxmin._core.convex_set import ConvexSet
from jaxmin.sets.affine import affine
from jaxmin.sets.ball import ball
from jaxmin.sets.half_space import half_space
from jaxmin.sets.nonnegative import nonnegative
from jaxmin.sets.product import product
from jaxmin.sets.projection import projection
from jaxmin.sets.simplex import simplex

__all__ = ["ConvexSet", "affine", "ball", "half_space", "nonnegative", "product", "projection", "simplex"]
