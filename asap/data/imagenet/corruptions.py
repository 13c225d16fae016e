"""ImageNet-C (Hendrycks and Dietterich 2019): the validation images, 224 x 224, corrupted.

With one of 15 corruptions (or of 4 more, meant for validation) at one of 5 severities. The authors'
script make_imagenet_c.py writes <corruption>/<severity>/<wnid>/<file>.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from asap.data.imagenet.names import N_IMAGES, synsets
from asap.data.imagenet.original import sample
from asap.data.imagenet.variants import check_count, part_of_set
from asap.data.images.file_options import FileOptions
from asap.data.images.folder import folder_source
from asap.data.images.image_files import ImageFiles
from asap.data.images.listing import class_folders
from asap.data.options import Opening
from asap.errors import RequestError

CORRUPTIONS = {
    "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
    "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    "weather": ("snow", "frost", "fog", "brightness"),
    "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
    "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
}
SEVERITIES = range(1, 6)
_C_TOPS = ("", "imagenet-c", "ImageNet-C")
_C_SIZE = (224, 224)


@dataclass(frozen=True)
class ImageNetCOptions(FileOptions):
    """<path>/<corruption>/<severity>/<wnid>/*, or the path is itself the folder of one severity.

    The folders of the published archives (noise, blur, weather, digital, extra) may lie between.
    corruption, severity: which ones to read; None takes them from the name of the path's folder.
    Raises RequestError if they are unknown, if they do not exist, or if the path is the folder of
    other ones.
    """

    corruption: str | None = None
    severity: int | None = None
    shown: ClassVar[tuple[str, ...]] = ("corruption", "severity")

    def files(self, opening: Opening) -> ImageFiles:
        root = opening.spec.path
        hint = (
            "give data.path=/data/imagenet-c data.corruption=fog data.severity=3, with "
            "/data/imagenet-c/fog/3/<wnid>/*.JPEG"
        )
        if root is None or not root:
            raise RequestError(f"no folder is given for ImageNet-C: {hint}")
        found = _corrupted(Path(root), self.corruption, self.severity, hint)
        folder, corruption, severity = found
        source, _ = folder_source(folder, synsets(), hint)
        check_count(source, N_IMAGES, "ImageNet-C", folder, opening.spec.strict)
        sizes = {one.size for one in sample(source)}
        other = "" if sizes <= {_C_SIZE} else ", not 224 x 224 as ImageNet-C's are"
        return ImageFiles(
            source, opening.transform, opening.patch_grid, name="imagenet_c", classes=synsets(),
            about=f"ImageNet-C, {corruption}, severity {severity}, "
            f"{part_of_set(len(source.labels), N_IMAGES)}{other}",
        )  # fmt: skip


def _corrupted(
    root: Path, corruption: str | None, severity: int | None, hint: str
) -> tuple[Path, str, int]:
    """The folder of one corruption at one severity, and the names of both."""
    known = [name for names in CORRUPTIONS.values() for name in names]
    if corruption is not None and corruption not in known:
        raise RequestError(
            f"data.corruption={corruption!r} is not a corruption of ImageNet-C: use one of "
            f"{', '.join(known)}"
        )
    if severity is not None and severity not in SEVERITIES:
        raise RequestError(f"data.severity={severity} is not possible: give 1 to 5")
    if not root.is_dir():
        raise RequestError(f"{root} is not a folder: {hint}")
    # If `root` holds class folders, its path ends with the corruption and the severity.
    place = Path(os.path.abspath(root))  # the name of a link, not of its target  # noqa: PTH100
    is_one = bool(set(class_folders(root)) & set(synsets()))
    own = place.parent.name if is_one else place.name
    corruption = _agreed("corruption", corruption, own if own in known else None, root)
    at = int(place.name) if is_one and place.name in map(str, SEVERITIES) else None
    severity = _agreed("severity", severity, at, root)
    if corruption is None:
        raise RequestError(f"data.corruption is missing: give one of {', '.join(known)}")
    if severity is None:
        raise RequestError("data.severity is missing: give 1 to 5")
    if is_one:
        return root, corruption, severity
    # Otherwise look below `root`, with or without the published archives' folders.
    packed = next(group for group, names in CORRUPTIONS.items() if corruption in names)
    inside = [root] if own == corruption else []
    inside += [root / top / way / corruption for top in _C_TOPS for way in ("", packed)]
    for folder in inside:
        if (folder / str(severity)).is_dir():
            return folder / str(severity), corruption, severity
    raise RequestError(f"{root} has no folder {corruption}/{severity}: {hint}")


def _agreed(option: str, given: Any, found: Any, root: Path) -> Any:
    """The given value, else the one in the folder's name; RequestError if the two differ."""
    if given is not None and found is not None and given != found:
        raise RequestError(
            f"data.{option}={given} is not that of {root}, which is {found}: leave one of them out"
        )
    return found if given is None else given
