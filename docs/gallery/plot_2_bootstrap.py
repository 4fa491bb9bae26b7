"""
A thousand fits at once
=======================

How certain are the parameters of a fit? The bootstrap answers without formulas: it fits many data sets that might have
been measured instead. Here this is one compiled call under ``vmap``.

The data are NIST's Thurber: electron mobility against the logarithm of the density, 37 measurements, a quotient of two
cubics with seven parameters. NIST certifies the parameters and their standard deviations, so the results can be
compared. The data ship with jaxmin.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxmin
from jaxmin.datasets import nist

jax.config.update("jax_enable_x64", True)

data = nist.load("Thurber")
x, y = jnp.asarray(data.x), jnp.asarray(data.y)
scale = jnp.asarray(data.starts[1])


def curve(b, x):
    return jnp.polyval(b[3::-1], x) / (1 + x * jnp.polyval(b[:3:-1], x))


def misfit(u, y):
    """The share of the variance of y that is left unexplained; u counts the parameters in units of a rough guess."""
    return jnp.sum((y - curve(scale * u, x)) ** 2) / jnp.sum((y - y.mean()) ** 2)


def fit(y):
    return jaxmin.minimize(misfit, jnp.ones(7), args=(y,), options={"gtol": 1e-8})


# %%
# One fit agrees with the certificate.

one = fit(y)
b = scale * one.x
print(one.message)
for k in range(7):
    print(f"b{k + 1}  fitted {float(b[k]):14.7f}   certified {data.certified[k]:14.7f}")

# %%
# A thousand more: the fitted curve plus residuals that are drawn again, widened for the seven fitted parameters. NIST's
# deviations are those of the linearized model. Where the bootstrap's are larger, the model is not linear enough.

residuals = (y - curve(b, x)) * np.sqrt(37 / (37 - 7))
drawn = jax.random.choice(jax.random.key(0), residuals, (1000, 37))
batch = jax.jit(jax.vmap(fit))(curve(b, x)[None, :] + drawn)
spread = np.std(batch.x, axis=0) * np.asarray(scale)
print(f"{int(batch.success.sum())} of 1000 converged; evaluations: {int(batch.nfev.min())} to {int(batch.nfev.max())}")
for k in range(7):
    print(f"b{k + 1}  deviation: bootstrap {spread[k]:8.3f}   certified {data.deviation[k]:8.3f}")

# %%

t = jnp.linspace(-3.2, 2.3, 300)
curves = np.asarray(jax.vmap(lambda u: curve(scale * u, t))(batch.x))
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", width_ratios=(3, 2))
left.fill_between(t, *np.quantile(curves, [0.005, 0.995], axis=0), alpha=0.4, label="99 % of the fits")
left.plot(t, curve(b, t), lw=1, label="fit")
left.plot(x, y, ".", ms=5, color="tab:orange", label="measured")
left.set(xlabel="logarithm of the density", ylabel="electron mobility")
left.legend()
right.hist(np.asarray(scale[0] * batch.x[:, 0]), bins=40, density=True, alpha=0.5)
axis = np.linspace(*right.get_xlim(), 200)
mean, deviation = data.certified[0], data.deviation[0]
right.plot(axis, np.exp(-0.5 * ((axis - mean) / deviation) ** 2) / (deviation * np.sqrt(2 * np.pi)), color="tab:red")
right.set(xlabel="$b_1$: bootstrap, and NIST's certificate (line)", yticks=[])
plt.show()
