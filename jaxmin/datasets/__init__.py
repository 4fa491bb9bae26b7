"""Data sets with certified results: ``nist``, nonlinear regressions of the Statistical Reference Datasets."""

from jaxmin.datasets import nist

__all__ = ["nist"]
