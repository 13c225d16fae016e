"""Runs a backbone's own layers on ragged batches, with a method deciding which tokens remain."""

ENGINE_VERSION = 1  # raised by hand when results change
