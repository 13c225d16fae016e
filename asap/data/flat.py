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
    return [name for name in names if number_of(name) and name.lower().endswith(EXTENSIONS)]


def flat_source(folder: Path, labels: Labels) -> FileSource:
    """The images with their classes, in canonical order. RequestError on one without a label."""
    names = flat_files(folder)
    places = by_number(((number_of(name) or 0, name) for name in names), folder)
    own = {number: wnid for number, name in places.items() if (wnid := wnid_in(name))}
    known = arrange(places, labels, own)
    return FileSource(folder, known.places, known.paths, known.labels)
