"""Data sets: labelled pictures, each a `Sample`, in a fixed order, with a digest of the content."""
