"""The parts of `python -m jaxmin`."""
