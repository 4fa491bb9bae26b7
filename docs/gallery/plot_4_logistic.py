"""
A logistic regression with a weight for each feature
====================================================

A penalty prevents a regression from learning noise. How strong should it be? Usually one tries a grid, so there are
only one or two weights. But the solution of a fit has a derivative with respect to its weights. So the
cross-validated loss has a gradient, and thirty weights are as easy as one: a minimization inside a minimization.

The data: 569 breast tumours, 30 measurements of cell nuclei each, benign or malignant (W. N. Street, W. H. Wolberg and
O. L. Mangasarian, 1993), from scikit-learn.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import sklearn.datasets

import jaxmin

jax.config.update("jax_enable_x64", True)

data = sklearn.datasets.load_breast_cancer()
order = np.random.default_rng(0).permutation(569)
features = (data.data - data.data.mean(axis=0)[None, :]) / data.data.std(axis=0)[None, :]
features, signs = jnp.asarray(features[order]), jnp.asarray(2.0 * data.target[order] - 1)
seen, held_back = slice(0, 400), slice(400, None)
folds = np.arange(400) % 5  # fit k leaves out fold k


def log_loss(p, features, signs, counts):
    margin = signs * (features @ p["w"] + p["b"])
    return jnp.sum(counts * jax.nn.softplus(-margin)) / jnp.sum(counts)


def penalized(p, log_weight, features, signs, counts):
    return log_loss(p, features, signs, counts) + jnp.sum(jnp.exp(log_weight) * p["w"] ** 2)


def fit(log_weight, counts):
    """The regression, to full convergence, on the observations that count."""
    start = {"w": jnp.zeros(30), "b": jnp.zeros(())}
    args = (log_weight, features[seen], signs[seen], counts)
    return jaxmin.minimize(penalized, start, args=args, options={"gtol": 1e-7})


def cross_validated(log_weight):
    """The loss on the fold left out, averaged over five fits, which run as one batch."""

    def left_out(fold):
        out = (folds == fold).astype(float)
        return log_loss(fit(log_weight, 1 - out).x, features[seen], signs[seen], out)

    return jnp.mean(jax.vmap(left_out)(jnp.arange(5)))


# %%
# First, one weight for all features: the curve that a grid would trace, and the point that the gradient finds.

common = jaxmin.minimize(lambda u: cross_validated(jnp.full(30, u)), 0.0, options={"gtol": 1e-5})
grid = jnp.linspace(-10.0, 0.0, 21)
curve = jax.jit(jax.vmap(lambda u: cross_validated(jnp.full(30, u))))(grid)
print(f"one weight: loss {float(common.fun):.4f} at log weight {float(common.x):.2f}, {int(common.nfev)} evaluations")

# %%
# Then thirty weights, started from there, each within bounds. One gradient of the outer function costs five fits and
# five linear solves.

each = jaxmin.minimize(
    cross_validated, jnp.full(30, common.x), bounds=jaxmin.Bounds(-12.0, 2.0), options={"gtol": 1e-4, "maxiter": 100}
)
print(f"thirty weights: loss {float(each.fun):.4f}, {int(each.nfev)} evaluations")
print(each.message)

everyone = jnp.ones(400)
for name, log_weight in (("one weight", jnp.full(30, common.x)), ("thirty weights", each.x)):
    p = fit(log_weight, everyone).x
    loss = log_loss(p, features[held_back], signs[held_back], jnp.ones(169))
    wrong = int(jnp.sum((features[held_back] @ p["w"] + p["b"]) * signs[held_back] < 0))
    print(f"{name:15} on the 169 tumours held back: loss {float(loss):.4f}, {wrong} wrong")

# %%
# The cross-validated loss falls by construction. The tumours held back show how much of that is real: here nothing.
# Thirty weights can be tuned, but 400 tumours are too few to determine them.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.8), layout="constrained", width_ratios=(2, 3))
left.plot(grid, curve, ".-", color="0.5", label="a grid")
left.plot(common.x, common.fun, "*", ms=14, color="tab:orange", label="by the gradient")
left.axhline(float(each.fun), color="tab:blue", lw=1, ls="--", label="thirty weights")
left.set(xlabel="logarithm of the weight", ylabel="cross-validated loss")
left.legend()
rank = np.argsort(each.x)
right.barh(np.arange(30), np.asarray(each.x)[rank] - float(common.x), color="tab:blue", height=0.7)
right.set_yticks(np.arange(30), data.feature_names[rank], fontsize=7)
right.set(xlabel="logarithm of the weight, against the common one")
plt.show()
