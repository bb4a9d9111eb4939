"""Where each set of the data folder can be downloaded from, and what is known of the bytes before they come. Facts only.

Every SHA-256 here was published by others; where each is from stands beside it. No digest is made from what a first download
happened to bring.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.data.declared import DATASETS, File, files_of
from harness.specs import Dataset

FASHION = (
    "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
)
KMNIST = ("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",)
MNIST = ("https://storage.googleapis.com/cvdf-datasets/mnist/", "https://ossci-datasets.s3.amazonaws.com/mnist/")
CIFAR = "https://www.cs.toronto.edu/~kriz/"
PMLB = "https://github.com/EpistasisLab/pmlb/raw/master/datasets/"
GZIP_OVERHEAD = 4096  # bytes: what packs worst grows by its headers and 5 bytes in 65,535

# TensorFlow Datasets, url_checksums/mnist.txt: the packed files, (SHA-256, bytes).
_MNIST_PACKED = {
    "train-images-idx3-ubyte.gz": ("440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9912422),
    "train-labels-idx1-ubyte.gz": ("3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28881),
    "t10k-images-idx3-ubyte.gz": ("8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1648877),
    "t10k-labels-idx1-ubyte.gz": ("f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4542),
}
# TensorFlow Datasets, url_checksums/cifar10.txt and cifar100.txt, and torchvision-ruby, found independently of each other.
_ARCHIVES = {
    "cifar10": ("cifar-10-binary.tar.gz", "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd", 170052171),
    "cifar100": ("cifar-100-binary.tar.gz", "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec", 168513733),
}


@dataclass(frozen=True)
class Download:
    """One file on the net.

    name: what a mirror calls it, below its own address.   urls: where it was published; the first that answers is used.
    sha256, size_bytes: of the bytes that are sent; sha256 "": nobody publishes it, then the content's digest alone decides, and
    size_bytes is the most that is taken.
    files: what it brings, by the name of the archive's member; one under "" where it is no archive.
    """

    name: str
    urls: tuple[str, ...]
    sha256: str
    size_bytes: int
    files: Mapping[str, File] = field(default_factory=dict)

    @property
    def is_archive(self) -> bool:
        return "" not in self.files


def downloads_of(set_: Dataset) -> tuple[Download, ...]:
    """What brings all files of a set; () for one that no published address offers as it is declared."""
    if DATASETS.get(set_.name) is not set_ or set_.where != "folder":
        return ()
    files = files_of(set_)
    if set_.name in _ARCHIVES:
        name, sha256, size = _ARCHIVES[set_.name]
        return (Download(name, (CIFAR + name,), sha256, size, {file.path: file for file in files}),)
    if set_.name in ("fashion-mnist", "kmnist"):
        places = FASHION if set_.name == "fashion-mnist" else KMNIST
        return tuple(_single(file, places, file.sha256, file.packed_bytes) for file in files)
    if set_.name == "mnist":
        return tuple(_single(file, MNIST, *_MNIST_PACKED[_base(file)]) for file in files)
    if set_.name.startswith("pmlb/"):
        return tuple(_single(file, (f"{PMLB}{set_.name.removeprefix('pmlb/')}/",), "", file.size_bytes + GZIP_OVERHEAD)
                     for file in files)  # fmt: skip
    return ()


def _single(file: File, places: tuple[str, ...], sha256: str, size_bytes: int) -> Download:
    return Download(file.path, tuple(place + _base(file) for place in places), sha256, size_bytes, {"": file})


def _base(file: File) -> str:
    return file.path.rpartition("/")[2]
