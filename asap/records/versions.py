"""Versions that are part of keys, raised by hand when the meaning of a number changes.

The version of a method is its own (`Method.method_version`), that of a kind of record stands in
`kinds.py`.
"""

ENGINE_VERSION = 1  # of the way in which blocks, tokens and MACs are computed
