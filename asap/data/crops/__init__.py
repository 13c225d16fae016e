"""The cache of decoded crops."""
