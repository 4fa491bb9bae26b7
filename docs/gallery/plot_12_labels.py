"""
Wrong labels, found by a gradient
=================================

Of 800 handwritten digits, 300 have a wrong label. Which ones? Every digit gets a weight between 0 and 1 in the loss
of a logistic regression. The weights are good if the regression fits another 100 digits well, which were labelled with
care. The solution of a fit has derivatives with respect to its data. So the gradient for all 800 weights costs one
fit and one linear solve (L. Franceschi, M. Donini, P. Frasconi and M. Pontil, ICML 2017).

The digits ship with scikit-learn: 1,797 images of 8 × 8 pixels (E. Alpaydin and C. Kaynak, 1998).
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import sklearn.datasets

import jaxmin

jax.config.update("jax_enable_x64", True)

data = sklearn.datasets.load_digits()
rng = np.random.default_rng(0)
order = rng.permutation(1797)
images, truth = data.data[order] / 16, data.target[order]
seen, careful, held_back = slice(0, 800), slice(800, 900), slice(900, None)
wrong = rng.random(800) < 1 / 3
labels = truth.copy()
labels[seen] = np.where(wrong, (truth[seen] + rng.integers(1, 10, 800)) % 10, truth[seen])
print(f"{wrong.sum()} of 800 labels are wrong")

# %%
# The inner problem: a regression with 650 parameters, to full convergence. Each digit counts as much as its weight.


def log_odds(p, images):
    return images @ p["w"] + p["b"][None, :]


def losses(p, images, labels):
    odds = log_odds(p, images)
    return jax.nn.logsumexp(odds, axis=1) - jnp.take_along_axis(odds, labels[:, None], axis=1)[:, 0]


def penalized(p, images, labels, weights):
    return jnp.mean(weights * losses(p, images, labels)) + 1e-3 * (jnp.sum(p["w"] ** 2) + jnp.sum(p["b"] ** 2))


def fit(images, labels, weights):
    start = {"w": jnp.zeros((64, 10)), "b": jnp.zeros(10)}
    return jaxmin.minimize(penalized, start, args=(images, labels, weights), options={"gtol": 1e-7})


# %%
# The outer problem: 800 weights within bounds. A label that makes the fit to the careful digits worse loses weight.


def outer(weights):
    p = fit(images[seen], labels[seen], weights).x
    return jnp.mean(losses(p, images[careful], labels[careful]))


res = jaxmin.minimize(outer, jnp.full(800, 0.5), bounds=jaxmin.Bounds(0.0, 1.0), options={"gtol": 5e-5})
print(res.message)
weights = np.asarray(res.x)
print(f"{int(res.nfev)} evaluations; {np.sum(weights == 0)} weights are 0, {np.sum(weights == 1)} are 1")
below = weights < 0.5
print(f"weight below 0.5: {np.mean(below[wrong]):.0%} of the wrong labels, {np.mean(below[~wrong]):.0%} of the others")

# %%
# The digits held back show what the weights are worth. The last fit knows the wrong labels.

fits = {
    "800 digits, equal weights": fit(images[seen], labels[seen], np.ones(800)),
    "100 careful digits alone": fit(images[careful], labels[careful], np.ones(100)),
    "800 digits, weights found": fit(images[seen], labels[seen], weights),
    "800 digits, wrong ones left out": fit(images[seen], labels[seen], 1.0 * ~wrong),
}
for name, one in fits.items():
    right = np.argmax(log_odds(one.x, images[held_back]), axis=1) == truth[held_back]
    print(f"{name:32} {np.mean(right):.1%} of {right.size} right")

# %%

figure = plt.figure(figsize=(11, 4.4), layout="constrained")
left, right = figure.subfigures(1, 2)
axis = left.add_subplot()
colours, names = ["tab:green", "tab:red"], ["right label", "wrong label"]
axis.hist([weights[~wrong], weights[wrong]], bins=20, color=colours, label=names)
axis.set(xlabel="weight", ylabel="digits")
axis.legend()
for i, axis in enumerate(right.subplots(4, 7).flat):
    axis.imshow(images[i].reshape(8, 8), cmap="gray_r")
    axis.set_title(f"{labels[i]}: {weights[i]:.2f}", fontsize=9, color="tab:red" if wrong[i] else "tab:green")
    axis.set_axis_off()
right.suptitle("label: weight found", fontsize=11)
plt.show()
