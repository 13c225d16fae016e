"""Validation images in one folder, ILSVRC2012_val_*.JPEG, with the devkit or a labels file."""

import os
from pathlib import Path

from asap.data.arrange import Labels, arrange, by_number
from asap.data.folder import EXTENSIONS
from asap.data.names import number_of, wnid_in
from asap.data.source import FileSource


def flat_files(folder: Path) -> list[str]:
    """Names of the validation images in a folder itself."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    pictures = (name for name in names if name.lower().endswith(EXTENSIONS))
    return [name for name in pictures if number_of(name) is not None]


def flat_source(folder: Path, labels: Labels) -> FileSource:
    """The images with their classes, in canonical order. RequestError on one without a label."""
    names = flat_files(folder)
    numbered = ((n, name) for name in names if (n := number_of(name)) is not None)
    places = by_number(numbered, folder)
    own = {number: wnid for number, name in places.items() if (wnid := wnid_in(name))}
    known = arrange(places, labels, own)
    return FileSource(folder, known.places, known.paths, known.labels)
