"""Importing this, before jax and NumPy, keeps XLA and BLAS on one thread."""

import os

# The flags alone leave XLA's own thread pool at one thread a core, and its loops then pass small kernels
# from thread to thread; NPROC is what sizes that pool.
FLAGS = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
SETTING = {
    "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip(),
    "NPROC": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
os.environ.update(SETTING)
