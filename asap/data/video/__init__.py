"""Clips of video: which frames are read, by which decoder, and the data set of clip files."""
