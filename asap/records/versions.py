"""Versions that are part of keys, raised by hand when the meaning of a number changes.

Each method has its own version (`Method.method_version`); those of the kinds of records are in
`kinds.py`.
"""

ENGINE_VERSION = 1  # of the way in which blocks, tokens and MACs are computed
