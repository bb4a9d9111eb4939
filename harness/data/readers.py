"""One reader a kind of set: checked bytes in, `Arrays` out. Every reader checks what it made against the declared sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from harness.data.arrays import Array, Arrays, label_codes
from harness.data.cache import cached
from harness.data.declared import DATASETS, FACTS
from harness.data.files import read_bytes
from harness.data.formats import (
    decode_jpegs,
    parse_cifar,
    parse_headed_table,
    parse_idx,
    parse_parquet,
    parse_table,
    require_pillow,
)
from harness.data.generated import sample
from harness.errors import DataError

if TYPE_CHECKING:
    from pyarrow import ChunkedArray

FSDD_TEST_TAKES = 5  # the data set's own split: takes 0..4 of each speaker and digit are its test part
DIABETES_FEATURES = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")


def read(name: str, data_dir: Path | None) -> Arrays:
    """The arrays of one of the core's sets. Raises DataError; HarnessError for an unknown name is the caller's."""
    if DATASETS[name].where == "generated":
        return sample(name)
    arrays = read_pmlb(name, data_dir) if name.startswith("pmlb/") else _READERS[name](data_dir)
    check(name, arrays)
    return arrays


def check(name: str, arrays: Arrays) -> None:
    """Raises DataError where a set's sizes are not the declared ones: shapes are promised to plans before anything is read."""
    if name not in FACTS:
        return
    facts = FACTS[name]
    found = (len(arrays.x), arrays.x.shape[1:], len(arrays.y), arrays.classes, arrays.test_items)
    expected = (facts.items, facts.inputs, facts.items, facts.classes, facts.test_items)
    if found != expected:
        raise DataError(f"data set {name!r}: read {found} (items, inputs, labels, classes, test items), declared {expected}")


def read_digits(data_dir: Path | None) -> Arrays:
    table = parse_table(read_bytes("digits", data_dir)[0], b",", "digits")
    y, classes = label_codes(table[:, -1])
    return Arrays(table[:, :-1].astype(np.uint8).reshape(-1, 1, 8, 8), y, classes)


def read_sklearn_csv(name: str) -> Callable[[Path | None], Arrays]:
    """scikit-learn's own CSV: a first line "rows,features,class names...", then features and the label."""

    def reader(data_dir: Path | None) -> Arrays:
        _, _, body = read_bytes(name, data_dir)[0].partition(b"\n")
        table = parse_table(body, b",", name)
        y, classes = label_codes(table[:, -1])
        return Arrays(table[:, :-1].copy(), y, classes)

    return reader


def read_diabetes(data_dir: Path | None) -> Arrays:
    features, targets = read_bytes("diabetes", data_dir)
    x = parse_table(features, b" ", "diabetes, features")
    y = parse_table(targets, b" ", "diabetes, targets")[:, 0]
    return Arrays(x, y.copy(), features=DIABETES_FEATURES)


def read_idx(name: str) -> Callable[[Path | None], Arrays]:
    """The reader of MNIST and of those that took its form: train images, train labels, test images, test labels."""

    def read(data_dir: Path | None) -> Arrays:
        contents = read_bytes(name, data_dir)
        train_x, train_y, test_x, test_y = (parse_idx(content, f"{name}, file {i + 1}") for i, content in enumerate(contents))
        y, classes = label_codes(np.concatenate([train_y, test_y]))
        return Arrays(np.concatenate([train_x, test_x])[:, None], y, classes, test_items=len(test_y))

    return read


def read_cifar(name: str, labels: int) -> Callable[[Path | None], Arrays]:
    """The reader of CIFAR's binary version; the last of `labels` labels counts, and the last file is the test part."""

    def read(data_dir: Path | None) -> Arrays:
        contents = read_bytes(name, data_dir)
        parts = [parse_cifar(content, labels, f"{name}, file {i + 1}") for i, content in enumerate(contents)]
        y, classes = label_codes(np.concatenate([codes[:, -1] for codes, _ in parts]))
        return Arrays(np.concatenate([images for _, images in parts]), y, classes, test_items=len(parts[-1][0]))

    return read


def read_cifar10_jpeg(data_dir: Path | None) -> Arrays:
    """(N, 3, 32, 32) uint8, RGB. Decoding takes seconds, so the pixels are cached, by the decoder and its version."""
    contents = read_bytes("cifar10-jpeg", data_dir)
    facts, made_from = FACTS["cifar10-jpeg"], [DATASETS["cifar10-jpeg"].digest, "rgb/1", jpeg_decoder()]

    def column(name: str) -> list[ChunkedArray]:
        return [parse_parquet(c, [name], f"cifar10-jpeg, file {i + 1}")[name] for i, c in enumerate(contents)]

    def decode() -> Array:
        return decode_jpegs([blob for blobs in column("image") for blob in blobs.to_pylist()], 32, 32, "cifar10-jpeg")

    # The labels are kept too, so that a process that finds the pixels made never imports pyarrow.
    labels = cached("cifar10-jpeg-labels", made_from, lambda: np.concatenate([part.to_numpy() for part in column("label")]))
    y, classes = label_codes(labels)
    return Arrays(cached("cifar10-jpeg", made_from, decode), y, classes, test_items=facts.test_items)


def jpeg_decoder() -> str:
    """The decoder and its version: decoders may differ in the last bit of a pixel."""
    require_pillow("cifar10-jpeg")
    from PIL import features

    turbo = features.version("libjpeg_turbo")
    return f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}"


def read_fsdd(data_dir: Path | None) -> Arrays:
    """(N, 1, 32, 32) float32 log-spectrograms, cached; the rows of the set's own test part last."""
    columns = parse_parquet(read_bytes("fsdd", data_dir)[0], ["pcm_s16le", "digit", "take"], "fsdd")
    digits, takes = columns["digit"].to_numpy(), columns["take"].to_numpy()
    order = np.argsort(takes < FSDD_TEST_TAKES, kind="stable")
    y, classes = label_codes(digits[order])

    def transform() -> Array:
        clips = columns["pcm_s16le"].to_pylist()
        return np.stack([log_spectrogram(clips[i]) for i in order])[:, None]

    x = cached("fsdd", [DATASETS["fsdd"].digest, "log-spectrogram/1", np.__version__], transform)
    return Arrays(x, y, classes, test_items=int((takes < FSDD_TEST_TAKES).sum()))


def log_spectrogram(pcm: bytes, frames: int = 32, bands: int = 32, window: int = 256) -> Array:
    """(bands, frames) float32: log(1 + mean magnitude) of 32 bands of 0..4 kHz in 32 frames spread evenly over a clip.

    pcm: mono, 16 bit, little-endian. A Hann window of 32 ms at 8 kHz; a clip shorter than one window is filled with zeros.
    Raises DataError for half a sample.
    """
    if len(pcm) % 2 or not pcm:
        raise DataError(f"fsdd: a clip of {len(pcm)} bytes; 16-bit samples come in pairs of bytes")
    signal = np.frombuffer(pcm, "<i2") / 32768.0
    signal = np.pad(signal, (0, max(0, window - len(signal))))
    starts = np.linspace(0, len(signal) - window, frames).astype(np.int64)
    cut = signal[starts[:, None] + np.arange(window)] * np.hanning(window)
    magnitude = np.abs(np.fft.rfft(cut, axis=1))[:, : window // 2]  # the bin at 4 kHz is left out, so bands are equal
    spectrum: Array = np.log1p(magnitude.reshape(frames, bands, -1).mean(axis=2))
    return spectrum.T.astype(np.float32)


def read_higgs(data_dir: Path | None) -> Arrays:
    table = parse_table(read_bytes("higgs-7500", data_dir)[0], b"\t", "higgs-7500")
    y, classes = label_codes(table[:, 0])
    return Arrays(table[:, 1:].copy(), y, classes)


def read_covertype(data_dir: Path | None) -> Arrays:
    names, table = parse_headed_table(read_bytes("covertype-15120", data_dir)[0], b",", "covertype-15120")
    return _labelled(names, table, label="Cover_Type", drop=("Id",), what="covertype-15120")


def read_pmlb(name: str, data_dir: Path | None) -> Arrays:
    names, table = parse_headed_table(read_bytes(name, data_dir)[0], b"\t", name)
    return _labelled(names, table, label="target" if "target" in names else "class", drop=(), what=name)


def read_tinyshakespeare(data_dir: Path | None) -> Arrays:
    return Arrays(np.frombuffer(read_bytes("tinyshakespeare", data_dir)[0], np.uint8), np.empty(0, np.int64))


def _labelled(names: list[str], table: Array, label: str, drop: tuple[str, ...], what: str) -> Arrays:
    if label not in names:
        raise DataError(f"{what}: no column {label!r}; the header has {names}")
    column = names.index(label)  # the first: pmlb/schizo has a second column of that name, which PMLB counts as a feature
    y, classes = label_codes(table[:, column])
    kept = [i for i, name in enumerate(names) if i != column and name not in drop]
    return Arrays(np.ascontiguousarray(table[:, kept]), y, classes, tuple(names[i] for i in kept))


_READERS: dict[str, Callable[[Path | None], Arrays]] = {
    "digits": read_digits,
    "wine": read_sklearn_csv("wine"),
    "breast_cancer": read_sklearn_csv("breast_cancer"),
    "iris": read_sklearn_csv("iris"),
    "diabetes": read_diabetes,
    "mnist": read_idx("mnist"),
    "fashion-mnist": read_idx("fashion-mnist"),
    "kmnist": read_idx("kmnist"),
    "cifar10": read_cifar("cifar10", labels=1),
    "cifar100": read_cifar("cifar100", labels=2),
    "cifar10-jpeg": read_cifar10_jpeg,
    "fsdd": read_fsdd,
    "higgs-7500": read_higgs,
    "covertype-15120": read_covertype,
    "tinyshakespeare": read_tinyshakespeare,
}
