"""Snapshots as other writers leave them: the same pictures and labels, or one clear line."""

from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asap.data.imagenet.parquet import ParquetSource
from asap.data.images.content import NOTHING
from asap.data.images.decoding import UnreadableImage
from asap.errors import RequestError

PICTURES = [b"\xff\xd8one", b"\xff\xd8two", None, b"\xff\xd8dog", b"\xff\xd8cat"]
NAMES = [f"ILSVRC2012_val_{i:08d}.JPEG" for i in (7, 3, 5, 9, 2)]
LABELS = [5, 0, 77, 5, 100]


def encode(values: list, kind: pa.DataType) -> pa.Array:
    if isinstance(kind, pa.DictionaryType):
        return pa.array(values, kind.value_type).dictionary_encode().cast(kind)
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.array([None if v is None else list(v) for v in values], kind)
    return pa.array([None] * len(values) if pa.types.is_null(kind) else values, kind)


def write(file: Path, content: pa.Array, path: pa.Array | None, label: pa.Array, **how) -> Path:
    """A file of one row group; `plain=True`: the images are a column and no group of columns."""
    plain = how.pop("plain", False)
    parts = {"bytes": content} if path is None else {"bytes": content, "path": path}
    mask = how.pop("mask", None)
    image = content if plain else pa.StructArray.from_arrays(parts.values(), parts, mask=mask)
    pq.write_table(pa.table({how.pop("image", "image"): image, "label": label}), file, **how)
    return file


def content_of(source: ParquetSource, i: int) -> bytes | None:
    try:
        return source.read(i).read()
    except UnreadableImage as error:
        assert "the row has no image" in str(error)
        return None


def read(file: Path) -> dict[str, tuple[int, bytes | None]]:
    """What a file holds, by file name; its sizes agree with that."""
    source = ParquetSource([file])
    found = [content_of(source, i) for i in range(len(source.paths))]
    assert source.sizes() == [-1 if content is None else len(content) for content in found]
    names = [path.rpartition("/")[2] for path in source.paths]
    return dict(zip(names, zip(source.labels, found, strict=True), strict=True))


EXPECTED = dict(zip(NAMES, zip(LABELS, PICTURES, strict=True), strict=True))
UNNAMED = {f"file-{i:06d}": pair for i, pair in enumerate(EXPECTED.values())}
BINARY = [pa.binary(), pa.large_binary(), pa.binary_view(), pa.binary(5),
          pa.dictionary(pa.int32(), pa.binary())]  # fmt: skip
TEXT = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
NUMBER = [getattr(pa, f"{sign}int{bits}")() for sign in ("", "u") for bits in (8, 16, 32, 64)]
NUMBER += [pa.dictionary(pa.int8(), pa.int64()), pa.dictionary(pa.int32(), pa.uint16())]


@pytest.mark.parametrize("label", NUMBER, ids=str)
@pytest.mark.parametrize("kind", range(len(BINARY)), ids=[str(kind) for kind in BINARY])
def test_every_kind_that_holds_the_same_is_read(kind: int, label: pa.DataType, tmp_path) -> None:
    text = TEXT[kind % len(TEXT)]
    columns = encode(PICTURES, BINARY[kind]), encode(NAMES, text), encode(LABELS, label)
    assert read(write(tmp_path / "file.parquet", *columns)) == EXPECTED


def test_rows_without_a_name_or_an_image(tmp_path) -> None:
    content, label = encode(PICTURES, pa.binary()), encode(LABELS, pa.int64())
    file = tmp_path / "file.parquet"
    for path in (None, pa.nulls(5), pa.nulls(5, pa.string())):
        assert read(write(file, content, path, label)) == UNNAMED
    assert read(write(file, content, None, label, plain=True)) == UNNAMED
    gone = pa.array([True, False, False, False, False])
    found = read(write(file, content, encode(NAMES, pa.string()), label, mask=gone))
    assert found == {f"file-{0:06d}": (5, None), **dict(list(EXPECTED.items())[1:])}
    assert read(write(file, pa.nulls(5), None, label))[f"file-{4:06d}"] == (100, None)


REFUSED = {
    "no image": (dict(image="img"), ["img (struct<", "label (int64)", "image.bytes (binary)"]),
    "image paths": (dict(content=NAMES, kind=pa.string(), plain=True), ["image (string)"]),
    "numbers in lists": (dict(kind=pa.list_(pa.uint8())), ["image.bytes (list<"]),
    "text labels": (dict(label=pa.array(["a"] * 5)), ["label (string)"]),
    "labels with a fraction": (dict(label=pa.array([0.5] * 5)), ["label (double)"]),
    "no labels": (dict(label=pa.nulls(5)), ["the label None"]),
    "a label too large": (dict(label=pa.array([2**64 - 1] * 5, pa.uint64())), ["cannot be read"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_holds_something_else_is_one_line(case: str, tmp_path) -> None:
    how, parts = dict(REFUSED[case][0]), REFUSED[case][1]
    content = encode(how.pop("content", PICTURES), how.pop("kind", pa.binary()))
    label = how.pop("label", pa.array(LABELS))
    path = None if how.get("plain") else encode(NAMES, pa.string())
    file = write(tmp_path / "file.parquet", content, path, label, **how)
    with pytest.raises(RequestError) as refused:
        ParquetSource([file])
    said = str(refused.value)
    assert str(file) in said and "\n" not in said and len(said) < 700
    for part in parts:
        assert part in said, said


@pytest.mark.parametrize(
    "stated", ["[]", "3", '{"info": []}', '{"info": {"features": {"label": {"names": 3}}}}']
)
def test_an_odd_note_of_the_hub_is_no_statement_of_classes(stated: str, tmp_path) -> None:
    file = write(tmp_path / "file.parquet", encode(PICTURES, pa.binary()), None, pa.array(LABELS))
    table = pq.read_table(file).replace_schema_metadata({"huggingface": stated})
    pq.write_table(table, file)
    assert read(file) == UNNAMED


KINDS = [*BINARY, *TEXT, *NUMBER, pa.null(), pa.bool_(), pa.float16(), pa.float64(), pa.date32(),
         pa.timestamp("ns"), pa.decimal128(9, 0), pa.list_(pa.uint8()), pa.large_list(pa.uint8()),
         pa.json_(), pa.uuid()]  # fmt: skip


def drawn(values: list, kind: pa.DataType) -> pa.Array | None:
    """The values as that kind, or any of that kind, or None where Arrow cannot make it."""
    try:
        return encode(values, kind)
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.nulls(5, kind) if not isinstance(kind, pa.BaseExtensionType) else None


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kinds=st.tuples(*[st.sampled_from(KINDS)] * 3),
    plain=st.booleans(),
    cut=st.none() | st.integers(0, 400),
    changed=st.none() | st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)),
)
def test_any_file_gives_its_content_or_one_line(kinds, plain, cut, changed, tmp_path) -> None:
    """Any kinds, also cut or changed in one byte; what is damaged may be an unreadable image."""
    content, path, label = map(drawn, (PICTURES, NAMES, LABELS), kinds)
    if content is None or path is None or label is None:
        return
    file = tmp_path / "file.parquet"
    try:
        write(file, content, path, label, plain=plain)
    except pa.ArrowException:
        return  # this writer cannot
    raw = bytearray(file.read_bytes())
    if changed is not None:
        raw[changed[0] % len(raw)] = changed[1]
    file.write_bytes(raw if cut is None else raw[:cut])
    try:
        source = ParquetSource([file])
        found = {}
        for i, (name, number) in enumerate(zip(source.paths, source.labels, strict=True)):
            try:
                found[name.rpartition("/")[2]] = (number, source.read(i).read())
            except UnreadableImage as error:
                assert "\n" not in str(error)
                found[name.rpartition("/")[2]] = (number, None)
    except RequestError as error:
        assert "\n" not in str(error) and len(str(error)) < 900
        return
    if cut is None and changed is None and np.all(content.is_valid().to_numpy(False)[[0, 1]]):
        named = not plain and path.null_count == 0
        assert found == (EXPECTED if named else UNNAMED)


def test_files_without_a_row_are_one_line(tmp_path) -> None:
    file = write(
        tmp_path / "file.parquet", *(encode([], k) for k in (BINARY[0], TEXT[0], NUMBER[0]))
    )
    with pytest.raises(RequestError, match="holds no image"):
        ParquetSource([file])


def test_an_absent_image_is_no_reason_to_hash_a_file_again(tmp_path, monkeypatch) -> None:
    file = write(tmp_path / "file.parquet", *(encode(*p) for p in zip(
        (PICTURES, NAMES, LABELS), (BINARY[0], TEXT[0], NUMBER[0]), strict=True)))  # fmt: skip
    monkeypatch.setattr("asap.data.images.content.SETTLED", 0)
    source, index = ParquetSource([file]), tmp_path / "index"
    found = source.hashes(range(5), index)
    by_hand = [NOTHING if p is None else sha256(p).digest() for p in PICTURES]
    of_name = dict(zip(NAMES, by_hand, strict=True))
    assert found == [of_name[path.rpartition("/")[2]] for path in source.paths]
    monkeypatch.setattr("asap.data.imagenet.parquet._group", None)  # nothing is read
    assert source.hashes(range(5), index) == found


def test_beside_damage_the_other_images_of_a_file_still_count(tmp_path, monkeypatch) -> None:
    """Else two sets with the same damage would have one digest, and one number."""
    found = []
    for last in (b"\xff\xd8cat", b"\xff\xd8CAT"):
        parts = ([*PICTURES[:-1], last], NAMES, LABELS)
        kinds = (BINARY[0], TEXT[0], NUMBER[0])
        content = (encode(values, kind) for values, kind in zip(parts, kinds, strict=True))
        file = write(tmp_path / "file.parquet", *content, row_group_size=2, compression="none")
        spoilt = bytearray(file.read_bytes())
        place = pq.read_metadata(file).row_group(0).column(0)
        start = place.dictionary_page_offset or place.data_page_offset
        spoilt[start : start + 8] = b"\xff" * 8
        file.write_bytes(spoilt)
        source = ParquetSource([file])
        monkeypatch.setattr("asap.data.images.content.SETTLED", 0)
        found.append(dict(zip(source.paths, source.hashes(range(5), tmp_path / "i"), strict=True)))
    first, second = found
    differing = [path.rpartition("/")[2] for path in first if first[path] != second[path]]
    assert differing == [NAMES[-1]]
    gone = {path.rpartition("/")[2] for path in first if first[path] == NOTHING}
    assert gone == set(NAMES[:3])  # the damaged group, and the row without an image
