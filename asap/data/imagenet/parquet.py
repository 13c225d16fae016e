"""A Hugging Face imagenet-1k snapshot: shards validation-*.parquet, read in place."""

import json
import os
import struct
from collections.abc import Iterator, Sequence
from hashlib import sha256
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from timm.data.imagenet_info import ImageNetInfo

from asap.data.imagenet.arrange import refuse_twice
from asap.data.imagenet.names import file_name, number_of, synsets, wnid_in
from asap.data.images.content import HASH_BYTES, NOTHING, Advance, Stored, hashes_of, split
from asap.data.images.decoding import UnreadableImage
from asap.data.natural_order import in_order
from asap.errors import RequestError, one_line

_REMEDY = "give the files data/validation-*.parquet of a Hugging Face imagenet-1k snapshot"
_ABSENT = b"\xff" * HASH_BYTES  # the hash of a row without an image; reading it did not fail
_SAME = 0.95  # share of class names that must agree; a few differ between lists


class ShardRow(NamedTuple):
    """Where an image is stored: shard, row group, row in the group."""

    file: int
    group: int
    row: int


class ParquetSource:
    """Images of a snapshot's shards, in canonical order.

    A row group (about a hundred images) is always decoded as a whole, and the last one is kept.
    Reading in `reading_order` decodes each group once; reading in canonical order decodes one for
    nearly every image.
    """

    def __init__(self, files: Sequence[Path]):
        self.files = sorted(files)
        names, labels, places = [], [], []
        for number, file in enumerate(self.files):
            for name, label, row in _rows(number, file):
                names.append(f"{synsets()[label]}/{name}")
                labels.append(label)
                places.append(row)
        if not names:
            raise RequestError(f"{self.files[0].parent} holds no image: {_REMEDY}")
        refuse_twice(names, self.files[0].parent)
        order = in_order(names)
        self.paths = [names[i] for i in order]
        self.labels = [labels[i] for i in order]
        self._places = [places[i] for i in order]
        self._kept: tuple[int, ShardRow, pa.Array] | None = None  # process, first row, content

    @property
    def reading_order(self) -> Sequence[int]:
        return sorted(range(len(self.paths)), key=self._places.__getitem__)

    def sizes(self) -> list[int]:
        """Bytes of each image. Reads all shards, since Parquet does not store these sizes."""
        size_of = {}
        for group in sorted({row._replace(row=0) for row in self._places}):
            content = self._readable(group)
            lengths = pc.call_function("binary_length", [content]).to_pylist()
            size_of |= {group._replace(row=i): size for i, size in enumerate(lengths)}
        return [-1 if (size := size_of[row]) is None else size for row in self._places]

    def hashes(self, positions: Sequence[int], index: Path | None) -> list[bytes]:
        files = [Stored(str(file.absolute()), _hash_images) for file in self.files]
        rows: dict[ShardRow, bytes] = {}
        order = sorted(self._places)
        for number, joined in enumerate(hashes_of(files, index)):
            own = [row for row in order if row.file == number]
            rows |= zip(own, split(joined), strict=False)
        found = (rows.get(self._places[i], NOTHING) for i in positions)
        return [NOTHING if one == _ABSENT else one for one in found]

    def stored_bytes(self) -> int:
        """Bytes of all images with Parquet's overhead of a few bytes each. Reads no image."""
        total = 0
        for file in self.files:
            with _opened(file) as opened:
                column = _columns(file, opened.schema_arrow)[0]
                groups = [
                    opened.metadata.row_group(i) for i in range(opened.metadata.num_row_groups)
                ]
            chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
            total += sum(c.total_uncompressed_size for c in chunks if c.path_in_schema == column)
        return total

    def read(self, i: int) -> BytesIO:
        row = self._places[i]
        try:
            content = self._content(row._replace(row=0))[row.row].as_py()
        except (OSError, pa.ArrowException) as error:
            raise UnreadableImage(f"truncated or damaged ({one_line(error)})") from error
        if content is None:
            raise UnreadableImage("missing: the row has no image")
        return BytesIO(content)

    def store(self, i: int) -> Path:
        return self.files[self._places[i].file]

    def _readable(self, group: ShardRow) -> pa.Array:
        try:
            return _group(self.files[group.file], group.group)
        except (OSError, pa.ArrowException) as error:
            said = f"{self.files[group.file]} cannot be read ({one_line(error)})"
            raise RequestError(f"{said}: {_REMEDY}") from error

    def _content(self, first: ShardRow) -> pa.Array:
        """The images of the row group that begins at row `first`. Each process keeps the last
        one."""
        if self._kept is None or self._kept[:2] != (os.getpid(), first):
            self._kept = None  # freed before the next is read: never two in memory
            self._kept = (os.getpid(), first, _group(self.files[first.file], first.group))
        return self._kept[2]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}


def _opened(file: Path) -> pq.ParquetFile:
    """Open a shard with the column types that Parquet itself stores.

    Writers also note the Arrow types they had in memory (views, dictionaries), which not every
    version of Arrow can restore. Here that entry of the footer gets another name, so that Arrow
    ignores it.
    """
    # A Parquet file ends with its footer, the footer's length (4 bytes) and "PAR1".
    with file.open("rb") as opened:
        start = opened.seek(-min(8, opened.seek(0, os.SEEK_END)), os.SEEK_END)
        size = struct.unpack("<I", opened.read(8)[:4].ljust(4, b"\0"))[0]
        opened.seek(max(0, start - size))
        footer = opened.read()
    footer = footer.replace(b"\x0cARROW:schema", b"\x0c-----:schema")  # \x0c: its length
    metadata = pq.read_metadata(BytesIO(b"PAR1" + footer))
    return pq.ParquetFile(file, memory_map=True, metadata=metadata)


def _group(file: Path, group: int) -> pa.Array:
    """The encoded images of a row group. One thread: Arrow's pool does not survive a fork."""
    with _opened(file) as opened:
        column = _columns(file, opened.schema_arrow)[0]
        table = opened.read_row_group(group, columns=[column], use_threads=False)
    return _column(table, column).cast(pa.large_binary()).combine_chunks()


def _hash_images(path: str, advance: Advance) -> bytes:
    """The hashes of all images of a shard, joined.

    Images of a damaged row group get `NOTHING`, so that the others still count. Raises OSError if
    the whole shard is damaged.
    """
    try:
        with _opened(Path(path)) as opened:
            groups = [opened.metadata.row_group(i) for i in range(opened.metadata.num_row_groups)]
    except (pa.ArrowException, ValueError, struct.error) as error:
        raise OSError(f"{path}: {error}") from error
    found = []
    for number, group in enumerate(groups):
        try:
            images = _group(Path(path), number)
        except (OSError, pa.ArrowException, RequestError, ValueError, struct.error):
            found += [NOTHING] * group.num_rows
            continue
        found += [sha256(b.as_buffer()).digest() if b.is_valid else _ABSENT for b in images]
        advance(images.nbytes)
    return b"".join(found)


def _rows(number: int, file: Path) -> Iterator[tuple[str, int, ShardRow]]:
    """(file name, class, place) of every image of a shard.

    Raises RequestError if the file cannot be read or is not such a shard.
    """
    try:
        with _opened(file) as opened:
            _check_classes(file, opened.schema_arrow)
            starts = _starts(opened.metadata)
            columns = ["label", *_columns(file, opened.schema_arrow)[1:]]
            table = opened.read(columns=columns, use_threads=False)
        labels = table["label"].cast(pa.int64()).to_pylist()
        names = _names(table, columns[1:], file.stem)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise RequestError(f"{file} cannot be read ({one_line(error)}): {_REMEDY}") from error
    for group, (start, stop) in enumerate(pairwise(starts)):
        for row in range(start, stop):
            _check_label(file, row, names[row], labels[row])
            given = number_of(names[row])
            name = names[row] if given is None else file_name(given)
            yield name, labels[row], ShardRow(number, group, row - start)


def _starts(metadata: pq.FileMetaData) -> list[int]:
    """The first row of each row group, and at the end the number of rows."""
    starts = [0]
    for group in range(metadata.num_row_groups):
        starts.append(starts[-1] + metadata.row_group(group).num_rows)
    return starts


def _columns(file: Path, schema: pa.Schema) -> list[str]:
    """The name of the column of encoded images, then that of their file names if there is one.

    If images or integer labels are missing, raises a RequestError that lists the columns.
    """
    kinds = {f.name: f.type for f in schema}
    image = kinds.pop("image", None)
    if isinstance(image, pa.StructType):
        kinds |= {f"image.{f.name}": f.type for f in image}
    elif image is not None:
        kinds["image"] = image
    content = "image" if "image" in kinds else "image.bytes"
    wanted = {content: _is_binary, "label": pa.types.is_integer, "image.path": pa.types.is_string}
    for name, holds in wanted.items():
        kind = kinds.get(name, None if name == "image.path" else pa.string())
        if kind is not None and not (holds(kind) or pa.types.is_null(kind)):
            there = ", ".join(f"{name} ({kind})" for name, kind in kinds.items()) or "none"
            there = there if len(there) <= 200 else f"{there[:200]}..."
            raise RequestError(
                f"{file} has the columns {there}, not image.bytes (binary), image.path "
                f"(string) and label (integer): {_REMEDY}, or rename and convert the columns"
            )
    return [name for name in (content, "image.path") if name in kinds]


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind)


def _column(table: pa.Table, name: str) -> pa.ChunkedArray:
    """A column, also one inside `image`, which is null in a row without an image."""
    outer, _, inner = name.partition(".")
    if not inner:
        return table[outer]
    return pc.call_function("struct_field", [table[outer]], pc.StructFieldOptions([inner]))


def _names(table: pa.Table, columns: list[str], stem: str) -> list[str]:
    """File names; a row without one is named after its shard and row number."""
    paths = _column(table, columns[0]).to_pylist() if columns else [None] * len(table)
    return [Path(p).name if p else f"{stem}-{i:06d}" for i, p in enumerate(paths)]


def _check_label(file: Path, row: int, name: str, label: int | None) -> None:
    """RequestError unless the label is a class and agrees with a WordNet id in the name."""
    if label is None or not 0 <= label < len(synsets()):
        raise RequestError(
            f"row {row} of {file} has the label {label}: {_REMEDY}, not the test set"
        )
    wnid = wnid_in(name)
    if wnid is not None and wnid != synsets()[label]:
        raise RequestError(
            f"row {row} of {file} is {name} with the label {label}, which is {synsets()[label]} in "
            f"timm's order: {_REMEDY}, with its classes in the order of sorted WordNet ids"
        )


def _check_classes(file: Path, schema: pa.Schema) -> None:
    """RequestError if the shard states class names that are not timm's in timm's order."""
    stated = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    for key in ("info", "features", "label", "names"):
        stated = stated.get(key) if isinstance(stated, dict) else None
    if not isinstance(stated, list):
        return
    names = [str(name) for name in stated]
    info = ImageNetInfo("imagenet-1k")
    expected = [{wnid, *_terms(info.index_to_description(i))} for i, wnid in enumerate(synsets())]
    agreeing = sum(bool(_terms(n) & e) for n, e in zip(names, expected, strict=False))
    if len(names) != len(expected) or agreeing < _SAME * len(expected):
        raise RequestError(
            f"{file} states {len(names):,} classes, of which {agreeing:,} are timm's class of the "
            f"same number: {_REMEDY}, with its classes in the order of sorted WordNet ids"
        )


def _terms(name: str) -> set[str]:
    return {term.strip().lower() for term in name.split(",")}
