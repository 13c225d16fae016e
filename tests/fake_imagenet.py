"""A fake ImageNet of real image files, in each layout in which people have the real one."""

import csv
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from scipy.io import savemat
from timm.data.imagenet_info import ImageNetInfo

WNIDS = ImageNetInfo("imagenet-1k").label_names()  # timm's order: sorted
KIT = "ILSVRC2012_devkit_t12"
DAMAGED = {"truncated": "truncated or damaged (image file is truncated", "text": "not an image"}
LAST = 2000  # the highest file number
KINDS = (
    "rgb", "cmyk", "grey", "exif", "progressive", "png", "wide", "tall", "small", "truncated",
    "text",
)  # fmt: skip


def encoded(kind: str, seed: int) -> bytes:
    """One file, as its kind says, of smooth colours with some noise."""
    draw = np.random.default_rng(seed)
    size = {"wide": (90, 31), "tall": (33, 70), "small": (9, 11)}.get(kind, (50, 40))
    x, y = np.meshgrid(np.linspace(0, 200, size[0]), np.linspace(0, 200, size[1]))
    channels = np.stack([x, y, (x + y) / 2], axis=-1) + draw.integers(0, 55, (*x.shape, 3))
    image = Image.fromarray(channels.astype(np.uint8))
    image = image.convert({"cmyk": "CMYK", "grey": "L"}.get(kind, "RGB"))
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    options = {"exif": exif} if kind == "exif" else {"progressive": kind == "progressive"}
    file = io.BytesIO()
    image.save(file, "PNG" if kind == "png" else "JPEG", **({} if kind == "png" else options))
    content = file.getvalue()
    return {"truncated": content[:-80], "text": b"this is no picture\n" * 20}.get(kind, content)


@dataclass(frozen=True)
class FakeImageNet:
    """`files`: content by file number. `wnids`: the class of every number from 1 to `LAST`."""

    files: dict[int, bytes]
    kinds: dict[int, str]
    wnids: list[str]

    @classmethod
    def make(cls, n: int, classes: int = 20) -> "FakeImageNet":
        draw = np.random.default_rng(0)
        few = sorted(draw.choice(1000, classes, replace=False))
        labels = [few[i % classes] for i in draw.permutation(LAST)]
        numbers = sorted(draw.choice(np.arange(1, LAST + 1), n, replace=False).tolist())
        kinds = {number: KINDS[i % len(KINDS)] for i, number in enumerate(numbers)}
        files = {number: encoded(kinds[number], number) for number in numbers}
        return cls(files, kinds, [WNIDS[label] for label in labels])

    def name(self, number: int) -> str:
        return f"ILSVRC2012_val_{number:08d}.JPEG"

    def wnid(self, number: int) -> str:
        return self.wnids[number - 1]

    def path(self, number: int) -> str:
        return f"{self.wnid(number)}/{self.name(number)}"

    def folders(self, root: Path) -> Path:
        for number, content in self.files.items():
            file = root / "val" / self.path(number)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        return root

    def flat(self, root: Path, below: str = "") -> Path:
        (root / below).mkdir(parents=True, exist_ok=True)
        for number, content in self.files.items():
            (root / below / self.name(number)).write_bytes(content)
        return root

    def tar(self, root: Path) -> Path:
        root.mkdir(parents=True, exist_ok=True)
        with tarfile.open(root / "ILSVRC2012_img_val.tar", "w") as archive:
            for number in np.random.default_rng(1).permutation(list(self.files)).tolist():
                entry = tarfile.TarInfo(self.name(number))
                entry.size = len(self.files[number])
                archive.addfile(entry, io.BytesIO(self.files[number]))
        return root

    def parquet(self, root: Path, shards: int = 3, names: list[str] | None = None, **wrong) -> Path:
        """As the hub has it: shuffled, WordNet ids in the file names, class names in the schema."""
        (root / "data").mkdir(parents=True, exist_ok=True)
        order = np.random.default_rng(2).permutation(list(self.files)).tolist()
        label = {"names": names or hub_names(), "_type": "ClassLabel"}
        features = {"image": {"_type": "Image"}, "label": label}
        meta = {"huggingface": json.dumps({"info": {"features": features}})}
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        schema = pa.schema([("image", kind), ("label", pa.int64())], metadata=meta)
        for i in range(shards):
            rows = [self._row(number, **wrong) for number in order[i::shards]]
            file = root / "data" / f"validation-{i:05d}-of-{shards:05d}.parquet"
            pq.write_table(pa.Table.from_pylist(rows, schema), file, row_group_size=16)
        return root

    def _row(self, number: int, shift: int = 0, paths: bool = True) -> dict:
        path = f"ILSVRC2012_val_{number:08d}_{self.wnid(number)}.JPEG" if paths else None
        label = (WNIDS.index(self.wnid(number)) + shift) % 1000
        return {"image": {"bytes": self.files[number], "path": path}, "label": label}

    def devkit(self, root: Path, packed: bool = False) -> Path:
        """The kit with class numbers in an order of its own, and three inner nodes."""
        order = np.random.default_rng(3).permutation(1000)
        ids = {WNIDS[label]: i + 1 for i, label in enumerate(order)}
        kind = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("gloss", object),
                ("num_children", object), ("children", object)]  # fmt: skip
        leaves = [(i, wnid, "word", "gloss", 0, np.zeros(0)) for wnid, i in ids.items()]
        inner = [(1001 + i, f"n0000000{i}", "inner", "x", 2, np.ones(2)) for i in range(3)]
        synsets = np.array([*leaves, *inner], dtype=kind).reshape(-1, 1)
        folder = root / KIT / "data"
        folder.mkdir(parents=True, exist_ok=True)
        savemat(folder / "meta.mat", {"synsets": synsets})
        truth = "".join(f"{ids[wnid]}\n" for wnid in self.wnids)
        (folder / "ILSVRC2012_validation_ground_truth.txt").write_text(truth)
        if packed:
            with tarfile.open(root / f"{KIT}.tar.gz", "w:gz") as archive:
                archive.add(root / KIT, KIT)
            for file in folder.iterdir():
                file.unlink()
            folder.rmdir()
            (root / KIT).rmdir()
        return root

    def kaggle_csv(self, file: Path, boxes: dict[int, list[tuple[int, int, int, int]]]) -> Path:
        with file.open("w", newline="") as lines:
            writer = csv.writer(lines)
            writer.writerow(["ImageId", "PredictionString"])
            for number, found in boxes.items():
                words = [f"{self.wnid(number)} {' '.join(map(str, box))} " for box in found]
                writer.writerow([self.name(number).removesuffix(".JPEG"), "".join(words)])
        return file


def hub_names() -> list[str]:
    """Class names as the hub states them: words, with a few that differ from timm's."""
    names = ImageNetInfo("imagenet-1k").label_descriptions()
    return [f"{name} {i}" if name in ("crane", "maillot") else name for i, name in enumerate(names)]
