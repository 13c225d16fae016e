"""Runs a backbone's own layers on ragged batches, with a method deciding which tokens remain."""
