"""
Eighteen batters
================

After 45 times at bat in 1970, Clemente had hit 18 times and Alvis 7 times. How well does each of 18 players hit in the
rest of the season? His own average is noisy, and the average of all ignores what he can do. A hierarchical model finds
the compromise: abilities differ between players, by an amount that is estimated too (B. Efron and C. Morris, Journal of
the American Statistical Association 70 (1975), 311-319). The rest of the season shows which prediction was best.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxmin

jax.config.update("jax_enable_x64", True)

# Hits in the first 45 times at bat; times at bat in the rest of the season, and hits then.
data = {
    "Clemente": (18, 367, 127), "F. Robinson": (17, 426, 127), "F. Howard": (16, 521, 144),
    "Johnstone": (15, 275, 61), "Berry": (14, 418, 114), "Spencer": (14, 466, 126),
    "Kessinger": (13, 586, 155), "Alvarado": (12, 138, 29), "Santo": (11, 510, 137),
    "Swoboda": (11, 200, 46), "Unser": (10, 277, 73), "Williams": (10, 270, 69),
    "Scott": (10, 435, 132), "Petrocelli": (10, 538, 142), "E. Rodriguez": (10, 186, 42),
    "Campaneris": (9, 558, 159), "Munson": (8, 408, 129), "Alvis": (7, 70, 14),
}  # fmt: skip
hits, later, later_hits = np.array(list(data.values()), float).T
rest = later_hits / later

# %%
# The log odds of a hit are ``mean + spread * z`` with a standard normal z for each player. The unknowns are the z, not
# the odds ("non-centred"), so that a spread near 0 does no harm. The priors are weak: normal for the mean, half normal
# for the spread. h holds the mean and the logarithm of the spread.


def log_odds(z, h):
    return h[0] + jnp.exp(h[1]) * z


def surprise(z, h, hits):
    """Minus the logarithm of the density of the hits, z, and h, up to a constant."""
    odds, spread = log_odds(z, h), jnp.exp(h[1])
    prior = 0.5 * jnp.sum(z**2) + 0.5 * (h[0] + 1) ** 2 + 0.5 * (spread / 0.5) ** 2 - h[1]
    return prior - jnp.sum(hits * odds - 45 * jax.nn.softplus(odds))


# %%
# The most likely z for a given h are one minimization. The most likely z and h at once would mislead: small z are
# likely, so the spread becomes far too large. Instead z is integrated out by Laplace's approximation, and the rest is
# minimized over h: a minimization with another one inside. JAX differentiates both.


def players_given(h):
    return jaxmin.minimize(surprise, jnp.zeros(18), args=(h, hits), options={"gtol": 1e-9})


def marginal(h):
    z = players_given(h).x
    hit = jax.nn.sigmoid(log_odds(z, h))
    curvature = 1 + 45 * hit * (1 - hit) * jnp.exp(2 * h[1])  # the Hessian in z is diagonal
    return surprise(z, h, hits) + 0.5 * jnp.sum(jnp.log(curvature))


start = jnp.array([-1.0, jnp.log(0.2)])
res = jaxmin.minimize(marginal, start, options={"gtol": 1e-6})
print(res.message)
at_once = jaxmin.minimize(lambda p: surprise(p["z"], p["h"], hits), {"z": jnp.zeros(18), "h": start})
for name, (mean, log_spread) in {"z integrated out": res.x, "all at once": at_once.x["h"]}.items():
    print(f"{name:16}  average player {jax.nn.sigmoid(mean):.3f}   spread {jnp.exp(log_spread):.3f}")

# %%
# The bars: the variance of z from its covariance, and that of h from its own, through the derivative of the abilities.

players = players_given(res.x)
ability = log_odds(players.x, res.x)
by_h = jax.jacobian(lambda h: log_odds(players_given(h).x, h))(res.x)
variance = jnp.exp(2 * res.x[1]) * jnp.diag(players.covariance()) + jnp.sum((by_h @ res.covariance()) * by_h, axis=1)
low, middle, high = (np.asarray(jax.nn.sigmoid(ability + k * jnp.sqrt(variance))) for k in (-2, 0, 2))

predictions = {"own average": hits / 45, "average of all": np.full(18, hits.mean() / 45), "hierarchical": middle}
for name, predicted in predictions.items():
    print(f"{name:15} root mean square error {np.sqrt(np.mean((predicted - rest) ** 2)):.4f}")
print(f"{np.sum((low < rest) & (rest < high))} of 18 players are within two standard errors")

# %%
figure, axis = plt.subplots(figsize=(9, 6), layout="constrained")
row = np.arange(18)[::-1]
axis.hlines(row, low, high, color="tab:blue", alpha=0.35, lw=6)
axis.hlines(row, hits / 45, middle, color="0.5", lw=0.8)
axis.plot(hits / 45, row, "o", color="0.5", label="first 45 times at bat")
axis.plot(middle, row, "o", color="tab:blue", label="predicted, with two standard errors")
axis.plot(rest, row, "*", ms=9, color="tab:orange", label="rest of the season")
axis.axvline(hits.mean() / 45, color="0.5", lw=0.8, ls=":")
axis.set_yticks(row, data)
axis.set(xlabel="batting average")
figure.legend(loc="outside lower center", ncols=3)
plt.show()
