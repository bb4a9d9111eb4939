"""ONNX files: bytes to a parsed model with all its numbers. A file is not trusted: a mistake in it is a `HarnessError`.

`onnx` is imported when a file is read. Nothing of a file is run, and no file outside of its folder is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from harness import HarnessError
from harness.errors import MissingError
from harness_papers.lipsdp.activations import Array
from harness_papers.lipsdp.lowering import MOST_ENTRIES

MOST_BYTES = 1 << 30  # of a file and its data: protobuf itself ends at 2 GiB
BROKEN = (ValueError, TypeError, RuntimeError, OverflowError, MemoryError, KeyError, IndexError, AttributeError, OSError)


def import_onnx() -> Any:
    """onnx, with what is used of it. Raises MissingError with the mend."""
    try:
        import onnx
        import onnx.external_data_helper
        import onnx.reference
    except ImportError as exc:
        raise MissingError(
            "reading an ONNX file needs onnx, which is not installed; pip install 'paper-harness-papers[certify]'"
        ) from exc
    return onnx


def read_model(path: Path) -> Any:
    """The parsed file with its external data, which must lie in its folder. Raises HarnessError for what is no such file."""
    try:
        size = path.stat().st_size
        if size > MOST_BYTES:
            raise HarnessError(f"{path}: {size} bytes; the limit is {MOST_BYTES}")
        content = path.read_bytes()
    except OSError as exc:
        raise HarnessError(f"{path}: cannot be read: {exc.strerror or exc}") from exc
    onnx = import_onnx()
    from google.protobuf.message import DecodeError

    try:
        model = onnx.ModelProto.FromString(content)
    except (DecodeError, *BROKEN) as exc:
        raise HarnessError(f"{path}: this is no ONNX file, or a part of it is missing: {exc}") from exc
    if not model.graph.node:
        raise HarnessError(f"{path}: it holds no network: the graph has no nodes")
    for tensor in tensors_of(model.graph):
        load_external(tensor, path)
    return model


def tensors_of(graph: Any) -> Iterator[Any]:
    """The weights and the constants of a graph's own nodes."""
    yield from graph.initializer
    for node in graph.node:
        yield from (a.t for a in node.attribute if a.HasField("t"))


def load_external(tensor: Any, path: Path) -> None:
    """Put a tensor's external data into it. Raises HarnessError for a file that is not below the folder of the model."""
    onnx = import_onnx()
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return
    where = f"{path}: tensor {tensor.name!r}"
    said = {entry.key: entry.value for entry in tensor.external_data}
    location, folder = said.get("location", ""), path.resolve().parent
    file = (folder / location.replace("\0", "/..")).resolve()  # no path holds a NUL; refused below
    if not location or "\0" in location or not file.is_relative_to(folder) or file == folder:
        raise HarnessError(f"{where}: its data are said to be in {location!r}, which is not below {folder}; refused")
    try:
        offset, available = int(said.get("offset", 0)), file.stat().st_size
        length = int(said.get("length", available - offset))
        if offset < 0 or length < 0 or offset + length > available or length > MOST_BYTES:
            raise HarnessError(f"{where}: {length} bytes at {offset} of {location!r}, which has {available}")
        with file.open("rb") as opened:
            opened.seek(offset)
            tensor.raw_data = opened.read(length)
    except (OSError, ValueError) as exc:
        raise HarnessError(f"{where}: its data in {location!r} cannot be read: {exc}") from exc
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def to_array(tensor: Any, where: str) -> Array:
    """Numbers of a tensor; floats as float64. Raises HarnessError where they are not as many as its shape says."""
    onnx = import_onnx()
    try:
        if prod(tensor.dims) > MOST_ENTRIES or any(n < 0 for n in tensor.dims):
            raise HarnessError(
                f"{where}: shape {list(tensor.dims)} has more numbers than the limit of {MOST_ENTRIES}, or fewer than 0"
            )
        array = np.asarray(onnx.numpy_helper.to_array(tensor))
    except BROKEN as exc:
        raise HarnessError(f"{where}: its numbers are damaged: {exc}") from exc
    array = array if array.dtype.kind in "iub" else array.astype(np.float64)
    if not np.isfinite(array).all():
        raise HarnessError(f"{where}: it holds numbers that are not finite")
    return array


def in_float64(model: Any) -> Any:
    """A copy whose weights and constants are float64, for onnx's evaluator."""
    onnx = import_onnx()
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in tensors_of(copy.graph):
        if tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16):
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor).astype(np.float64), tensor.name))
    for node in copy.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == onnx.TensorProto.FLOAT:
                attribute.i = onnx.TensorProto.DOUBLE
    return copy
