"""
The composition of a flame
==========================

Half a mole of hydrazine burns with half a mole of oxygen, at 3500 K and 51 atmospheres. The mixture has ten species.
In equilibrium its Gibbs energy is least, and the number of atoms of each element is what it was. The data are those of
W. B. White, S. M. Johnson and G. B. Dantzig, Journal of Chemical Physics 28 (1958), 751-755, who proposed to compute
equilibria in this way. This is problem 112 in the collection of W. Hock and K. Schittkowski (1981). The energy that
is printed there, -47.7076, is not the least.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxmin

jax.config.update("jax_enable_x64", True)

species = "H", "H2", "H2O", "N", "N2", "NH", "NO", "O", "O2", "OH"
# The free energy of a mole of each, in units of RT, at 3500 K and 51 atmospheres.
energy = jnp.array([-6.089, -17.164, -34.054, -5.914, -24.721, -14.986, -24.100, -10.708, -26.662, -22.179])
atoms = jnp.array(
    [
        [1.0, 2, 2, 0, 0, 1, 0, 0, 0, 1],  # hydrogen
        [0.0, 0, 0, 1, 2, 1, 1, 0, 0, 0],  # nitrogen
        [0.0, 0, 1, 0, 0, 0, 1, 1, 2, 1],  # oxygen
    ]
)

# %%
# The unknowns are the moles of each species. The energy of mixing has a logarithm, so they stay positive: bounds are
# hard, and nothing is evaluated outside of them. The element balances are one linear constraint.


def gibbs(moles, pressure):
    """The Gibbs energy of the mixture, in units of RT; the pressure is in units of 51 atmospheres."""
    share = moles / jnp.sum(moles)
    return jnp.sum(moles * (energy + jnp.log(pressure) + jnp.log(share)))


def equilibrium(elements, pressure):
    balance = jaxmin.LinearConstraint(atoms, elements, elements)
    start, bounds = jnp.full(10, 0.1), jaxmin.Bounds(1e-9)
    return jaxmin.minimize(gibbs, start, args=(pressure,), bounds=bounds, constraints=balance)


burnt = jnp.array([2.0, 1.0, 1.0])  # moles of H, N and O in half a mole each of N2H4 and O2
res = equilibrium(burnt, 1.0)
print(res.message)
print(f"least Gibbs energy {float(res.fun):.4f} RT, after {int(res.nfev)} evaluations")
for name, moles in zip(species, res.x, strict=True):
    print(f"{name:4} {float(moles):.6f} moles")

# %%
# The multipliers are, but for the sign, the potentials of the elements: how much the least energy changes with one more
# mole of atoms. A species has the potentials of its atoms together, so three numbers give those of all ten species.

potentials = -res.v[0]
for name, potential in zip(("hydrogen", "nitrogen", "oxygen"), potentials, strict=True):
    print(f"potential of {name:8} {float(potential):9.4f} RT")
chemical = jax.grad(gibbs)(res.x, 1.0)
difference = float(jnp.max(abs(atoms.T @ potentials - chemical)))
print(f"largest difference from the ten chemical potentials: {difference:.0e}")

# %%
# How much oxygen, and what pressure? Each question is a batch of 60 equilibria under ``vmap``, and both run the same
# compiled program.

many = jax.jit(jax.vmap(equilibrium))
oxygen, pressure = np.linspace(0.1, 2.0, 60), np.logspace(-2, 3, 60)  # moles; atmospheres
by_oxygen = many(jnp.array([[2.0, 1.0, 2 * moles] for moles in oxygen]), jnp.ones(60))
by_pressure = many(jnp.tile(burnt, (60, 1)), pressure / 51)
print(f"{int(by_oxygen.success.sum())} and {int(by_pressure.success.sum())} of 60 successes")

# %%

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.6), layout="constrained", sharey=True)
colours = plt.get_cmap("tab10")
for axis, across, batch in ((left, oxygen, by_oxygen), (right, pressure, by_pressure)):
    share = np.asarray(batch.x / batch.x.sum(axis=1, keepdims=True))
    for k in range(10):
        axis.plot(across, share[:, k], color=colours(k), label=species[k])
left.axvline(0.5, color="0.5", lw=1, ls=":")
left.set(yscale="log", ylim=(1e-5, 1), xlabel="moles of O$_2$ for half a mole of N$_2$H$_4$", ylabel="mole fraction")
right.axvline(51, color="0.5", lw=1, ls=":")
right.set(xscale="log", xlabel="pressure, atmospheres")
right.legend(loc="center left", bbox_to_anchor=(1, 0.5))
plt.show()
