"""
A Gaussian process on the air of Mauna Loa
==========================================

Carbon dioxide at Mauna Loa, 521 monthly means from 1958 to 2001: it rises, bends upwards, and breathes with the
seasons. A Gaussian process with three parts, one for each, and noise has nine hyperparameters. They are found by
maximizing the marginal likelihood (C. E. Rasmussen and C. K. I. Williams, Gaussian Processes for Machine Learning,
2006, Section 5.4.3). JAX computes the gradient, through a Cholesky factorisation.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import jaxmin

jax.config.update("jax_enable_x64", True)

# Monthly means of the weekly samples, in hundredths above 300 parts per million; a row for each year from 1958 to 2001.
# C. D. Keeling and T. P. Whorf, Scripps Institution of Oceanography, CDIAC, 2004; public domain.
table = """
   -    - 1610 1720 1743    - 1562 1495 1350    - 1343 1470
1550 1670 1673 1768 1832 1802 1652 1490 1382 1340 1488 1552
1638 1698 1757 1912 1993 1945 1806 1577 1418 1384 1502 1620
1693 1765 1852 1942 2048 1975 1832 1677 1504 1535 1605 1698
1793 1862 1968 2055 2090 2050 1943 1773 1607 1548 1655 1753
1873 1897 1986 2127 2210 2146 1960 1760 1615 1605 1700 1835
1940    -    -    - 2200 2175 2030 1850 1660 1696 1773 1867
1940 2045 2092 2200 2206 2177 2104 1873 1782 1734 1888 1932
2054 2157 2238 2366 2402 2370 2285 2020 1870 1818 1990 2106
2240 2243 2300 2428 2495 2407 2248 2085 1930 1945 2068 2192
2255 2305 2392 2498 2548 2526 2402 2194 2025 2027 2132 2293
2393 2427 2560 2657 2728 2655 2580 2354 2240 2180 2282 2412
2508 2602 2700 2807 2792 2755 2630 2466 2315 2314 2405 2510
2614 2665 2720 2768 2882 2848 2722 2525 2340 2354 2482 2593
2672 2762 2773 2964 3000 2907 2804 2625 2486 2530 2643 2754
2855 2948 3038 3157 3240 3194 3065 2932 2750 2723 2805 2864
2932 3062 3150 3262 3298 3216 3107 2922 2738 2738 2840 2968
3025 3130 3200 3327 3386 3340 3180 2998 2852 2832 2944 3077
3174 3255 3345 3445 3476 3440 3286 3073 2935 2910 3035 3162
3288 3343 3470 3604 3668 3620 3480 3288 3157 3120 3235 3386
3502 3535 3660 3764 3795 3793 3650 3465 3274 3265 3382 3496
3623 3670 3800 3888 3938 3924 3752 3602 3398 3395 3515 3666
3793 3823 4006 4075 4134 4095 3938 3760 3588 3602 3706 3820
3922 4045 4140 4245 4282 4212 4043 3840 3670 3694 3843 3960
4070 4155 4268 4348 4396 4330 4192 3962 3802 3790 3927 4043
4134 4250 4315 4490 4565 4527 4382 4215 3988 4002 4115 4298
4368 4443 4518 4740 4735 4666 4520 4330 4112 4148 4285 4414
4493 4588 4744 4832 4883 4818 4645 4430 4300 4280 4422 4558
4625 4682 4774 4952 5008 4938 4782 4582 4480 4410 4562 4688
4800 4850 4948 5085 5174 5115 4945 4808 4640 4644 4793 4893
5040 5177 5212 5358 5418 5375 5222 5030 4875 4896 5000 5136
5277 5300 5360 5536 5560 5512 5386 5157 4986 5005 5120 5248
5365 5465 5548 5618 5707 5608 5468 5290 5094 5123 5270 5414
5468 5565 5720 5860 5925 5818 5605 5386 5212 5225 5374 5502
5590 5668 5790 5907 5954 5912 5700 5486 5302 5342 5420 5535
5668 5718 5843 5932 6018 5950 5742 5532 5377 5406 5535 5677
5832 5890 5993 6122 6165 6090 5946 5738 5592 5602 5757 5906
5998 6093 6157 6336 6370 6325 6180 5938 5800 5785 5948 6070
6202 6318 6406 6470 6532 6488 6348 6132 5940 5962 6074 6238
6312 6388 6456 6632 6668 6548 6438 6246 6015 6075 6238 6425
6534 6620 6738 6852 6914 6875 6760 6572 6393 6432 6555 6693
6812 6885 6960 7098 7084 7025 6900 6670 6468 6514 6665 6790
6902 6938 7040 7154 7165 7162 6994 6795 6654 6673 6812 6944
7018 7132 7206 7277 7380 7306 7130 6943 6788 6805 6938 7102
"""
months = np.array([np.nan if word == "-" else float(word) for word in table.split()])
measured = ~np.isnan(months)
when, co2 = 1958 + (np.arange(months.size)[measured] + 0.5) / 12, 300 + months[measured] / 100
# Every month is drawn. Up to 1992 every second month is fitted; the rest is predicted.
known = when < 1992
t, mean = jnp.asarray(when[known][::2]), co2[known].mean()
y = jnp.asarray(co2[known][::2] - mean)

# %%
# The kernel: a slow rise, a yearly wave whose shape drifts, and weather of a few months' length. All parameters are
# positive, so their logarithms are fitted, as a dictionary.

start = {
    "rise": {"size": 50.0, "years": 50.0},
    "season": {"size": 2.0, "decay": 100.0, "roughness": 1.0},
    "weather": {"size": 0.5, "years": 1.0, "shape": 1.0},
    "noise": {"size": 0.2},
}
start = jax.tree.map(jnp.log, start)


def kernel(p, t1, t2):
    d2 = (t1[:, None] - t2[None, :]) ** 2
    wave = jnp.sin(jnp.pi * (t1[:, None] - t2[None, :])) ** 2
    rise, season, weather = p["rise"], p["season"], p["weather"]
    return (
        rise["size"] ** 2 * jnp.exp(-0.5 * d2 / rise["years"] ** 2)
        + season["size"] ** 2 * jnp.exp(-0.5 * d2 / season["decay"] ** 2 - 2 * wave / season["roughness"] ** 2)
        + weather["size"] ** 2 * (1 + d2 / (2 * weather["shape"] * weather["years"] ** 2)) ** -weather["shape"]
    )


def factor(p):
    noise = p["noise"]["size"] ** 2 + 1e-6
    return jnp.linalg.cholesky(kernel(p, t, t) + noise * jnp.eye(t.size))


def surprise(log_p, y):
    """Minus the log marginal likelihood, per observation."""
    L = factor(jax.tree.map(jnp.exp, log_p))
    z = jax.scipy.linalg.solve_triangular(L, y, lower=True)
    return (0.5 * z @ z + jnp.sum(jnp.log(jnp.diag(L))) + 0.5 * y.size * jnp.log(2 * jnp.pi)) / y.size


res = jaxmin.minimize(surprise, start, args=(y,), options={"gtol": 1e-5, "maxiter": 500})
p = jax.tree.map(jnp.exp, res.x)
print(res.message)
likelihood, before = -float(res.fun) * y.size, -float(surprise(start, y)) * y.size
print(f"{int(res.nfev)} evaluations; log likelihood {likelihood:.1f}, at the start {before:.1f}")
for part, values in p.items():
    print(f"{part:8}", {name: round(float(value), 3) for name, value in values.items()})

# %%
# The prediction: ten years that the fit has not seen.

ahead = jnp.asarray(np.arange(1985, 2002, 1 / 24))


@jax.jit
def predict(p, y, ahead):
    L, cross = factor(p), kernel(p, t, ahead)
    weights = jax.scipy.linalg.cho_solve((L, True), y)
    v = jax.scipy.linalg.solve_triangular(L, cross, lower=True)
    # The prior variance is the same at every time: the kernel at distance 0.
    prior = kernel(p, ahead[:1], ahead[:1])[0, 0]
    return cross.T @ weights, jnp.sqrt(prior - jnp.sum(v**2, axis=0))


middle, deviation = (np.asarray(part) for part in predict(p, y, ahead))
figure, axis = plt.subplots(figsize=(9, 4.5), layout="constrained")
axis.plot(when, co2, ".", ms=3, color="0.5", label="measured")
axis.plot(ahead, middle + mean, lw=1, color="tab:red", label="predicted from the years before 1992")
axis.fill_between(ahead, middle + mean - 2 * deviation, middle + mean + 2 * deviation, alpha=0.25, color="tab:red")
axis.axvline(1992, color="0.5", lw=0.8, ls=":")
axis.set(xlabel="year", ylabel="CO$_2$, parts per million", xlim=(1975, 2002), ylim=(325, 378))
axis.legend(loc="upper left")
plt.show()
