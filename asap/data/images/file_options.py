"""Opens a data set of files: with its title, index of hashes, crop cache and limit."""

import logging
from abc import abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from asap.data.base import DataSet, take
from asap.data.crops.cache import cached
from asap.data.images.image_files import ImageFiles
from asap.data.options import DataOptions, Opening
from asap.data.video.clip_files import ClipFiles
from asap.records.files_left_out import counts_in_words

log = logging.getLogger("asap")


@dataclass(frozen=True)
class FileOptions(DataOptions):
    """The options of a data set of files."""

    @abstractmethod
    def files(self, opening: Opening) -> ImageFiles | ClipFiles:
        """All of its images or clips. RequestError if they do not exist."""

    def open(self, opening: Opening) -> DataSet:
        found = self.files(opening)
        found.title = opening.spec.title
        found.index = opening.index
        if found.files_left_out:
            log.warning(
                "%s: left out are %s", found.description, counts_in_words(found.files_left_out)
            )
        if opening.spec.cache is not None and isinstance(found, ImageFiles):
            return cached(found, Path(opening.spec.cache), opening.limit)
        return take(cast(DataSet, found), opening.limit)
