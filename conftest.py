"""Test settings: 64-bit types at hand, strict promotion of ranks, and compiled programs kept between tests."""

import importlib.util
import os
import pathlib

import jax

jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
cache = os.environ.get("JAXMIN_TEST_CACHE", str(pathlib.Path(__file__).parent / ".jax_cache"))
jax.config.update("jax_compilation_cache_dir", cache)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)

# Releases of Flax want a newer jax than the lowest that jaxmin supports.
if importlib.util.find_spec("flax") is None:
    collect_ignore = ["tests/test_ecosystem.py", "docs/ecosystem.md"]
