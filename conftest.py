"""Test settings: 64-bit types enabled, strict promotion of ranks, programs compiled quickly."""

import gc
import importlib.util
import itertools
import os
import pathlib
import subprocess
import sys

import jax
import pytest

ROOT = pathlib.Path(__file__).parent

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
# For the next run. One run alone finds next to nothing there, and writing takes a twentieth of its time.
if cache := os.environ.get("JAXMIN_TEST_CACHE"):
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

# The worked examples of the pages are files. A page imports them as if they were in its own folder.
sys.path.append(str(ROOT / "docs" / "examples"))

# Built by Sphinx, or run by tests/test_docs.py.
collect_ignore = ["docs/conf.py", "docs/_build", "docs/_gallery", "docs/gallery"]
# Releases of some libraries need a newer jax than the lowest that jaxmin supports.
for library, needed_by in {
    "flax": ["docs/ecosystem.md", "docs/with_flax.md"],
    "equinox": ["docs/with_equinox.md"],
    "diffrax": ["docs/with_diffrax.md"],
    "numpyro": ["docs/with_numpyro.md"],
    # Those of the extra `pages` alone. Without it the pages of other libraries are left to .ci/pages.
    "tinygp": [f"docs/with_{name}.md" for name in ("blackjax", "diffrax", "equinox", "flax", "numpyro", "tinygp")],
    "blackjax": ["docs/with_blackjax.md"],
    "sklearn": ["docs/with_equinox.md", "docs/with_flax.md", "docs/with_blackjax.md"],
    "scipy": ["docs/from_scipy.md", "docs/scipy_functions.md", "docs/multistart.md", "docs/from_curve_fit.md"],
    "lmfit": ["docs/from_curve_fit.md"],
    "jaxopt": ["docs/from_jaxopt.md", "docs/from_curve_fit.md"],
    "optax": ["docs/from_jaxopt.md", "docs/from_optax.md", "docs/with_equinox.md"],
    "optimistix": ["docs/from_optimistix.md", "docs/from_curve_fit.md"],
}.items():
    if importlib.util.find_spec(library) is None:
        collect_ignore += needed_by

# Pages and examples that promise equal bits, or show effects of rounding.
_OF_ROUNDING = {
    ROOT / name for name in ("docs/float32.md", "docs/statuses.md", "docs/watching.md", "jaxmin/_api/solver.py")
}
# XLA's older emitters for a CPU, without LLVM's optimizations, compile slower code in a quarter of the time. A program
# that is compiled in one piece, not in 32 at once, takes less processor time: here other tests run beside it.
_QUICK = (
    "--xla_cpu_use_fusion_emitters=false --xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
)


# Python's collector goes through all that JAX has traced, again and again: a quarter of the tests' time.
gc.set_threshold(100_000, 50, 100)


def pytest_configure(config):
    """Compile in a quarter of the time if no test of rounding runs; workers of a parallel run inherit the flags."""
    if getattr(config.option, "dist", "no") == "load":
        config.option.dist = "worksteal"  # each worker has tests in a row, and those of a file share programs
    if "not rounding" in config.option.markexpr and "PYTEST_XDIST_WORKER" not in os.environ:
        flags = f"{os.environ.get('XLA_FLAGS', '')} {_QUICK}".strip()
        # A flag that XLA does not know ends the process.
        probe = [sys.executable, "-c", "import jax; jax.devices('cpu')"]
        probed = subprocess.run(probe, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True, check=False)
        if probed.returncode == 0:
            os.environ["XLA_FLAGS"] = flags


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path in _OF_ROUNDING:
            item.add_marker(pytest.mark.rounding)


_tests = itertools.count(1)
_MAPS = pathlib.Path("/proc/self/maps")


def pytest_runtest_teardown():
    """Drop compiled programs where they are many: Linux allows a process 65,530 mappings, and a solve takes up to 200.

    Not after each file, since the next one would compile the operations that all tests use again.
    """
    tests = next(_tests)
    if tests % 10 == 0 and _MAPS.read_bytes().count(b"\n") > 4000 if _MAPS.exists() else tests % 100 == 0:
        jax.clear_caches()
