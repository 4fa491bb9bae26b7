"""Optax-style building blocks: optimizers, one file each, and functions that combine, schedule and clip them.

The function with the name of the file builds the optimizer.
"""

from jaxmin.transforms._clipping import clip_by_global_norm, clip_grads, l2_norm
from jaxmin.transforms._combine import apply_updates, chain, multi_transform, partition
from jaxmin.transforms._lookup import value_and_grad_from_state
from jaxmin.transforms._schedules import (
    constant,
    exponential_decay,
    inverse_time_decay,
    make_schedule,
    piecewise_constant,
    polynomial_decay,
)
from jaxmin.transforms._transformation import Transformation
from jaxmin.transforms._triple import from_triple
from jaxmin.transforms.adagrad import adagrad
from jaxmin.transforms.adam import adam
from jaxmin.transforms.adamax import adamax
from jaxmin.transforms.extra_gradient import extra_gradient
from jaxmin.transforms.momentum import momentum
from jaxmin.transforms.nesterov import nesterov
from jaxmin.transforms.rmsprop import rmsprop
from jaxmin.transforms.rmsprop_momentum import rmsprop_momentum
from jaxmin.transforms.sgd import sgd
from jaxmin.transforms.sm3 import sm3

__all__ = [
    "Transformation",
    "adagrad",
    "adam",
    "adamax",
    "apply_updates",
    "chain",
    "clip_by_global_norm",
    "clip_grads",
    "constant",
    "exponential_decay",
    "extra_gradient",
    "from_triple",
    "inverse_time_decay",
    "l2_norm",
    "make_schedule",
    "momentum",
    "multi_transform",
    "nesterov",
    "partition",
    "piecewise_constant",
    "polynomial_decay",
    "rmsprop",
    "rmsprop_momentum",
    "sgd",
    "sm3",
    "value_and_grad_from_state",
]
