"""Bytes to arrays: IDX, CIFAR's records, delimited text, JPEG images, Parquet columns. Bad input is a DataError; no pickle."""

from __future__ import annotations

import importlib.util
import io
import math
import struct
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from harness.data.arrays import Array
from harness.errors import DataError, MissingError

IDX_UBYTE = 0x08
MAX_RATIO = 100  # to a packed byte; the data sets here have 0.01 rows and 2 bytes


def parse_idx(content: bytes, what: str) -> Array:
    """A uint8 array from IDX: two zero bytes, a type, the number of axes, their lengths (big-endian), the bytes.

    Source: the format's description on LeCun's MNIST page. what: names the file in errors. Raises DataError.
    """
    if len(content) < 4 or content[:2] != b"\0\0":
        raise DataError(f"{what}: no IDX file: it starts with {content[:4].hex() or 'nothing'}, not with 0000")
    kind, axes = content[2], content[3]
    if kind != IDX_UBYTE or not 1 <= axes <= 4:
        raise DataError(f"{what}: IDX type {kind:#04x} with {axes} axes; unsigned bytes (0x08) with 1 to 4 axes are read")
    start = 4 + 4 * axes
    if len(content) < start:
        raise DataError(f"{what}: cut inside the IDX header ({len(content)} of {start} bytes)")
    shape = struct.unpack(f">{axes}I", content[4:start])
    # Python integers: a product of hostile lengths must not wrap round to the right size.
    if len(content) - start != math.prod(shape):
        raise DataError(
            f"{what}: the IDX header says {shape}, which is {math.prod(shape)} bytes, but {len(content) - start} follow"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def parse_cifar(content: bytes, labels: int, what: str) -> tuple[Array, Array]:
    """Labels (N, labels) uint8 and images (N, 3, 32, 32) uint8 of CIFAR's binary version.

    A record is `labels` bytes (CIFAR-10: the label; CIFAR-100: the coarse one, then the fine one) and 3,072 of pixels: red,
    green, blue, each row by row. Source: the format's description on Krizhevsky's page. what: names the file in errors.
    Raises DataError.
    """
    record = labels + 3 * 32 * 32
    if not content or len(content) % record:
        raise DataError(f"{what}: {len(content)} bytes are no whole number of records of {record} bytes")
    rows = np.frombuffer(content, np.uint8).reshape(-1, record)
    return rows[:, :labels], rows[:, labels:].reshape(-1, 3, 32, 32)


def parse_table(text: bytes, delimiter: bytes, what: str) -> Array:
    """A (rows, columns) float64 array from lines of numbers (True and False count as 1 and 0). Raises DataError.

    Every line has the same number of columns and every value is finite.
    """
    body = text.replace(b"\r\n", b"\n").replace(b"True", b"1").replace(b"False", b"0").rstrip(b"\n")
    if not body.strip():
        raise DataError(f"{what}: the table has no rows")
    if b"\r" in body:  # NumPy would take it for the end of a line, and put the columns of two lines into one
        raise DataError(f"{what}: a carriage return inside a line")
    codes = np.frombuffer(body + b"\n", np.uint8)
    ends = np.flatnonzero(codes == ord("\n"))
    delimiters = np.diff(np.cumsum(codes == ord(delimiter))[ends], prepend=0)
    columns = int(delimiters[0]) + 1
    odd = np.flatnonzero(delimiters != columns - 1)
    if odd.size:
        raise DataError(f"{what}: row {odd[0] + 1} has {delimiters[odd[0]] + 1} columns, the first has {columns}")
    values = parse_integers(body, delimiter)
    if values is None:
        values = parse_floats(body, delimiter, what)
    if values.size != len(ends) * columns:
        raise DataError(f"{what}: {values.size} numbers in {len(ends)} rows of {columns} columns")
    values = values.reshape(len(ends), columns)
    finite = np.isfinite(values)
    if not finite.all():
        raise DataError(f"{what}: row {int(finite.argmin()) // columns + 1} holds a value that is not finite")
    return values


def parse_integers(body: bytes, delimiter: bytes) -> Array | None:
    """Flat float64 values where every field is an integer, else None: a tenth of the time that floats take."""
    if body.translate(None, b"0123456789-\n" + delimiter):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("error", DeprecationWarning)  # how NumPy says that it stopped at something else than a number
        try:
            values = np.fromstring(body.replace(b"\n", delimiter), dtype=np.int64, sep=delimiter.decode())
        except (DeprecationWarning, ValueError):
            return None
    # Beyond 2**53 a float64 is no longer exact, and beyond 2**63 NumPy gives the largest integer without a word.
    return values.astype(np.float64) if values.size and abs(values).max() < 2**53 and values.min() > -(2**53) else None


def parse_floats(body: bytes, delimiter: bytes, what: str) -> Array:
    """Flat float64 values. Raises DataError where a field is no number."""
    try:
        return np.loadtxt(io.BytesIO(body), delimiter=delimiter.decode(), comments=None, ndmin=2).reshape(-1)
    except ValueError as exc:
        raise DataError(f"{what}: {exc}") from exc


def parse_headed_table(text: bytes, delimiter: bytes, what: str) -> tuple[list[str], Array]:
    """The column names of the first line, and the numbers below. Raises DataError."""
    head, _, body = text.partition(b"\n")
    names = [name.strip() for name in head.decode("utf-8", "replace").split(delimiter.decode())]
    values = parse_table(body, delimiter, what)
    if values.shape[1] != len(names):
        raise DataError(f"{what}: the header names {len(names)} columns, the rows have {values.shape[1]}")
    return names, values


def parse_parquet(content: bytes, columns: Sequence[str], what: str) -> dict[str, Any]:
    """Parquet columns by name (`pyarrow.ChunkedArray`). Raises DataError where the file or a column is not as promised.

    A file whose own figures say that it unpacks to more than MAX_RATIO times its size is refused before anything is read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # No threads: a trial's thread count is fixed, and a forked child must not inherit a pool.
        with pq.ParquetFile(pa.BufferReader(content), pre_buffer=False) as file:
            refuse_bomb(file.metadata, len(content), what)
            table = file.read(columns=list(columns), use_threads=False)
    except (pa.ArrowException, OSError) as exc:
        raise DataError(f"{what}: cannot be read as Parquet ({exc})") from exc
    missing = [name for name in columns if name not in table.column_names]
    if missing:
        raise DataError(f"{what}: lacks the columns {missing}; it has {table.column_names}")
    return {name: table[name] for name in columns}


def refuse_bomb(metadata: Any, size: int, what: str) -> None:
    """Raises DataError where rows, values or unpacked bytes are out of all proportion to the file (runs cost nothing in it)."""
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    claims = {
        "rows": max(metadata.num_rows, sum(group.num_rows for group in groups)),
        "values": max((column.num_values for column in columns), default=0),
        "unpacked bytes": sum(column.total_uncompressed_size for column in columns),
    }
    for unit, claimed in claims.items():
        if not 0 <= claimed <= MAX_RATIO * size:
            raise DataError(f"{what}: says it holds {claimed} {unit} in {size} bytes; place the file again, from its source")


def decode_jpegs(blobs: Sequence[bytes], height: int, width: int, what: str) -> Array:
    """(N, 3, height, width) uint8 from JPEG images of exactly that size. Raises DataError, MissingError without Pillow."""
    require_pillow(what)
    from PIL import Image, UnidentifiedImageError

    images = np.empty((len(blobs), height, width, 3), np.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # every size is looked at below
        for i, blob in enumerate(blobs):
            try:
                image = Image.open(io.BytesIO(blob), formats=("JPEG",))
                # The header is read first: an image of another size is refused before a pixel of it is decoded.
                if image.size != (width, height) or image.mode != "RGB":
                    raise DataError(f"{what}: image {i} is {image.mode} {image.size}, expected RGB {(width, height)}")
                images[i] = np.frombuffer(image.tobytes(), np.uint8).reshape(height, width, 3)
            except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as exc:
                raise DataError(f"{what}: image {i} cannot be decoded ({exc})") from exc
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def require_pillow(what: str) -> None:
    """Raises MissingError with the mend where Pillow is not installed."""
    if importlib.util.find_spec("PIL") is None:
        raise MissingError(f"{what}: decoding JPEG needs Pillow: pip install 'paper-harness[images]'")
