"""Validation images in one folder, ILSVRC2012_val_*.JPEG; labels from devkit or labels file."""

import os
from pathlib import Path

from asap.data.imagenet.arrange import Labels, arrange, by_number
from asap.data.imagenet.names import number_of, wnid_in
from asap.data.images.formats import ending_of
from asap.data.images.left_out import is_rubbish
from asap.data.images.listing import list_folder
from asap.data.images.source import FileSource

_BEGINNING = "ilsvrc2012_val_"


def flat_files(folder: Path) -> list[str]:
    """Names of the validation images directly in a folder."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    return [name for name in names if number_of(name) is not None and not is_rubbish(name)]


def flat_source(folder: Path, labels: Labels) -> FileSource:
    """The images with their classes, in canonical order. RequestError if one has no label."""
    found = list_folder(folder, lambda name: name.lower().startswith(_BEGINNING))
    numbered = []
    for name in found.files:
        if (number := number_of(name)) is None:
            found.left_out.add(name, ending_of(name))
        else:
            numbered.append((number, name))
    places = by_number(numbered, folder)
    own = {number: wnid for number, name in places.items() if (wnid := wnid_in(name))}
    known = arrange(places, labels, own)
    found.left_out.tell_second_names(folder)
    left = found.left_out.summary
    return FileSource(folder, known.places, known.paths, known.labels, left)
