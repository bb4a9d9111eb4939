"""Data sets: digests that are checked, hostile files that are refused, parts that are disjoint, a seal that holds."""

from __future__ import annotations

import gzip
import hashlib
import io
import re
import struct
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.data import (
    DATASETS,
    FACTS,
    Arrays,
    Sizes,
    data_digest,
    dataset,
    draw,
    facts,
    list_rows,
    load,
    locate,
    missing,
    part_sizes,
    preload,
    read_bytes,
    readers,
    seal,
    split,
    unseal,
    verify,
    verify_rows,
)
from harness.data import cache as data_cache
from harness.data.declared import FILES, File, content_digest
from harness.data.files import read_checked
from harness.data.formats import decode_jpegs, parse_headed_table, parse_idx, parse_parquet, parse_table
from harness.errors import DataError, HarnessError
from harness.specs import Dataset

EMBEDDED = [name for name, set_ in DATASETS.items() if set_.where == "embedded"]
GENERATED = [name for name, set_ in DATASETS.items() if set_.where == "generated"]
TABLES = ["digits", "wine", "breast_cancer", "iris"]


def plugin_set(content: bytes, path: str = "set.bin", size: int | None = None) -> Dataset:
    """A set as a plugin would declare it: one file in the data folder, digest and size of its unpacked content."""
    size_bytes = len(content) if size is None else size
    return Dataset("mine", "folder", hashlib.sha256(content).hexdigest(), "", "CC0", "https://example.org", path, size_bytes)


# What the core declares --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", EMBEDDED)
def test_each_embedded_set_has_its_declared_digest_and_sizes(name):
    """A user without a data folder gets exactly the declared data, or is told that scikit-learn's copy changed."""
    assert verify(name).state == "ok"

    arrays = load(name)

    assert (len(arrays.x), arrays.x.shape[1:], arrays.classes) == (FACTS[name].items, FACTS[name].inputs, FACTS[name].classes)
    assert len(arrays.y) == len(arrays.x)


@pytest.mark.parametrize("name", TABLES)
def test_the_embedded_readers_agree_with_scikit_learn(name):
    """scikit-learn's own loaders are the oracle of ours, which do not import it."""
    sklearn_datasets = pytest.importorskip("sklearn.datasets")
    expected_x, expected_y = getattr(sklearn_datasets, f"load_{name}")(return_X_y=True)

    arrays = load(name)

    np.testing.assert_array_equal(arrays.x.reshape(len(arrays.x), -1), expected_x)
    np.testing.assert_array_equal(arrays.y, expected_y)


def test_diabetes_agrees_with_scikit_learn_unscaled():
    """The raw features: scaling is the task's work, by its train part."""
    from sklearn.datasets import load_diabetes

    expected_x, expected_y = load_diabetes(return_X_y=True, scaled=False)

    np.testing.assert_array_equal(load("diabetes").x, expected_x)
    np.testing.assert_array_equal(load("diabetes").y, expected_y)


def test_loading_embedded_data_imports_neither_torch_nor_scikit_learn():
    """scikit-learn costs a second to import; each command and each trial would pay it."""
    code = "import sys, harness.data; harness.data.load('digits'); print({'torch', 'sklearn', 'pyarrow'} & set(sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "set()"


def test_declarations_import_no_numpy():
    """`harness list` asks for them and does nothing with arrays."""
    code = "import sys, harness.data; harness.data.DATASETS, harness.data.part_sizes; print('numpy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "False"


def test_every_set_states_its_licence_source_and_digest():
    """Whoever publishes a result must be able to say what the data are."""
    assert all(re.fullmatch("[0-9a-f]{64}", s.digest) and s.licence and s.source and s.summary for s in DATASETS.values())


def test_124_tables_are_known_without_the_folder():
    """Shapes come from the committed table, so that a plan needs no data."""
    assert sum(name.startswith("pmlb/") for name in DATASETS) == 124
    assert FACTS["pmlb/spambase"].items == 4601
    assert FACTS["pmlb/spambase"].inputs == (57,)


def test_a_set_of_several_files_has_a_digest_that_each_file_moves():
    """One changed file is another data set."""
    files = FILES["mnist"]
    changed = (*files[:3], File(files[3].path, "0" * 64, files[3].size_bytes))

    assert content_digest(files) == DATASETS["mnist"].digest
    assert content_digest(changed) != content_digest(files)


def test_an_unknown_name_is_refused_with_the_nearest_one():
    """A typing error should cost seconds."""
    with pytest.raises(HarnessError, match=r"no data set 'digit'; did you mean 'digits'\?"):
        load("digit")


def test_loaded_arrays_cannot_be_written():
    """Trials of one server share them."""
    with pytest.raises(ValueError, match="read-only"):
        load("iris").x[0, 0] = 1.0


def test_data_is_read_once_a_process():
    """The fork server preloads; children must find the arrays, not the file."""
    preload(["wine", "a plugin's own set"])

    assert load("wine") is load("wine")


# Files: digests, packing, absence ----------------------------------------------------------------------------------------


def test_a_wrong_digest_names_file_expected_found_and_the_mend(tmp_path):
    """The reader must see at once which file to replace, and from where."""
    set_ = plugin_set(b"right")
    (tmp_path / "set.bin").write_bytes(b"wrong")

    found = hashlib.sha256(b"wrong").hexdigest()
    with pytest.raises(DataError, match=rf"set\.bin: SHA-256 .* is {found}, expected {set_.digest}; .* from https://example"):
        read_bytes(set_, tmp_path)
    assert verify(set_, tmp_path).state == "wrong"


def test_a_repacked_file_is_the_same_data(tmp_path):
    """Digests are of the content, so the packer and its settings do not matter."""
    set_ = plugin_set(b"content" * 100, "set.bin.gz")
    for level in (1, 9):
        (tmp_path / "set.bin.gz").write_bytes(gzip.compress(b"content" * 100, level))
        assert read_bytes(set_, tmp_path) == [b"content" * 100]


@pytest.mark.parametrize("cut", [3, 15, -1, -9])
def test_a_truncated_gzip_file_is_a_data_error(tmp_path, cut):
    """A download that broke off."""
    set_ = plugin_set(bytes(range(256)) * 10, "set.bin.gz")
    (tmp_path / "set.bin.gz").write_bytes(gzip.compress(bytes(range(256)) * 10)[:cut])

    with pytest.raises(DataError, match=r"set\.bin\.gz cannot be unpacked"):
        read_bytes(set_, tmp_path)


def test_what_is_no_gzip_file_is_a_data_error(tmp_path):
    """An HTML error page that was saved under the data's name."""
    (tmp_path / "set.bin.gz").write_bytes(b"<html>404</html>")

    with pytest.raises(DataError, match="cannot be unpacked"):
        read_bytes(plugin_set(b"x", "set.bin.gz"), tmp_path)


def test_a_decompression_bomb_is_refused_without_being_unpacked(tmp_path):
    """100 MB of zeros in 100 kB: refused after the declared size, in little memory."""
    import tracemalloc

    (tmp_path / "set.bin.gz").write_bytes(gzip.compress(bytes(100 << 20), 1))
    tracemalloc.start()
    with pytest.raises(DataError, match="holds more than its declared 1000 bytes"):
        read_bytes(plugin_set(b"x", "set.bin.gz", size=1000), tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert peak < 4 << 20


def test_a_missing_file_names_the_folder_setting_and_the_source(tmp_path):
    """Data that is not there is the commonest mistake, so its message must be enough."""
    with pytest.raises(
        DataError, match=r"mnist/train-images.* not there \(the folder is set by --data-dir or HARNESS_DATA_DIR\).*LeCun"
    ):
        load("mnist", tmp_path)
    assert verify("mnist", tmp_path).state == "missing"


def test_without_a_folder_the_setting_is_named(monkeypatch):
    """Nobody should have to read the manual for this."""
    monkeypatch.delenv("HARNESS_DATA_DIR", raising=False)

    with pytest.raises(
        DataError, match=r"needs the data folder: place tabular/higgs-7500\.tsv\.gz .*--data-dir or HARNESS_DATA_DIR"
    ):
        locate("higgs-7500")


def test_the_environment_names_the_folder(tmp_path, monkeypatch):
    """The worker gets the folder this way."""
    monkeypatch.setenv("HARNESS_DATA_DIR", str(tmp_path))
    (tmp_path / "set.bin").write_bytes(b"x")

    assert locate(plugin_set(b"x")) == (tmp_path / "set.bin",)


def test_a_folder_in_place_of_a_file_counts_as_missing(tmp_path):
    """Not a traceback."""
    (tmp_path / "set.bin").mkdir()

    with pytest.raises(DataError, match="is not there"):
        read_bytes(plugin_set(b"x"), tmp_path)


def test_a_package_that_is_not_installed_is_named(tmp_path):
    """Data may live inside any package."""
    set_ = Dataset("mine", "embedded", "0" * 64, "", "", "", "no_such_package:x.csv", 1)

    with pytest.raises(DataError, match="comes with the package 'no_such_package', which is not installed"):
        locate(set_)


# Formats -----------------------------------------------------------------------------------------------------------------


def idx(shape: tuple[int, ...], payload: bytes, magic: bytes | None = None) -> bytes:
    head = magic if magic is not None else bytes([0, 0, 8, len(shape)])
    return head + struct.pack(f">{len(shape)}I", *shape) + payload


def test_idx_is_read_by_its_header():
    """Against a file written by hand from the format's description."""
    np.testing.assert_array_equal(parse_idx(idx((2, 3), bytes(range(6))), "f"), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "starts with nothing"),
        (b"\x1f\x8b\x08\x00more", "starts with 1f8b0800"),
        (idx((2,), b"ab", magic=b"\0\0\x0d\x01"), "type 0x0d"),
        (idx((), b"", magic=b"\0\0\x08\x00"), "with 0 axes"),
        (idx((), b"", magic=b"\0\0\x08\xff"), "with 255 axes"),
        (b"\0\0\x08\x03\0\0", "cut inside the IDX header"),
        (idx((2, 3), b"abcde"), "is 6 bytes, but 5 follow"),
        (idx((2, 3), b"abcdefg"), "is 6 bytes, but 7 follow"),
        (idx((65536, 65536, 65536, 65536), b""), "but 0 follow"),  # 2**64 elements: 0 in wrapping arithmetic
    ],
)
def test_idx_with_a_wrong_magic_or_a_lying_header_is_refused(content, message):
    """No length in a file is believed before it is compared with what is there."""
    with pytest.raises(DataError, match=message):
        parse_idx(content, "f")


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=64))
def test_any_bytes_are_an_idx_array_or_a_data_error(content):
    """No input may end in another exception."""
    for start in (b"", b"\0\0\x08\x01"):
        try:
            parse_idx(start + content, "f")
        except DataError:
            continue


def test_a_table_of_integers_and_one_of_floats_are_read_alike():
    """Two parsers, one meaning; the fast one is for integers."""
    integers = parse_table(b"1,-2\r\n3,4\r\n", b",", "f")
    floats = parse_table(b"1.0,-2\n3e0,4", b",", "f")

    np.testing.assert_array_equal(integers, [[1.0, -2.0], [3.0, 4.0]])
    np.testing.assert_array_equal(floats, integers)
    assert integers.dtype == floats.dtype == np.float64


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "no rows"),
        (b"\r", "no rows"),
        (b" \n", "no rows"),
        (b"1,2\r3,4\n", "a carriage return inside a line"),
        (b"1,2\n3\n", "row 2 has 1 columns, the first has 2"),
        (b"1,2\n\n3,4", "row 2 has 1 columns"),
        (b"1,2,3\n4\n5,6,7,8,9", "row 2 has 1 columns"),
        (b"1,two\n", "two"),
        (b"1,\n2,3\n", "f: "),
        (b"1,--2\n", "f: "),
        (b"nan,1\n", "row 1 holds a value that is not finite"),
        (b"1,2\n1e999,1\n", "row 2 holds a value that is not finite"),
        (b"# 1,2\n", "f: "),
        (b"\xff\xfe,1\n", "f: "),
    ],
)
def test_a_broken_table_is_a_data_error(text, message):
    """A row that is cut, a word where a number should be, numbers that are none."""
    with pytest.raises(DataError, match=message):
        parse_table(text, b",", "f")


def test_integers_that_int64_cannot_hold_are_read_as_floats():
    """NumPy's integer parser gives the largest integer without a word."""
    np.testing.assert_array_equal(parse_table(b"99999999999999999999999,1\n", b",", "f"), [[1e23, 1.0]])


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.binary(max_size=40), st.text("0123456789,.-e\n\rTrue", max_size=40).map(str.encode)))
def test_any_bytes_are_a_table_or_a_data_error(text):
    """No input may end in another exception or warning (warnings are errors here), nor in a value that is not finite."""
    try:
        table = parse_table(text, b",", "f")
    except DataError:
        return
    assert table.ndim == 2
    assert np.isfinite(table).all()


def test_a_header_that_does_not_fit_the_rows_is_refused():
    """A shifted header would name the wrong column as the label."""
    with pytest.raises(DataError, match="names 3 columns, the rows have 2"):
        parse_headed_table(b"a\tb\ttarget\n1\t2\n", b"\t", "f")


def test_what_is_no_parquet_file_is_a_data_error():
    """pyarrow's own exceptions do not reach the user."""
    with pytest.raises(DataError, match="f: cannot be read as Parquet"):
        parse_parquet(b"PAR1 and then nonsense PAR1", ["image"], "f")


def test_an_image_of_another_size_is_refused_before_it_is_decoded():
    """A small file may declare a huge picture."""
    image = pytest.importorskip("PIL.Image")
    stream = io.BytesIO()
    image.new("RGB", (64, 64)).save(stream, "JPEG")

    with pytest.raises(DataError, match=r"image 0 is RGB \(64, 64\), expected RGB \(32, 32\)"):
        decode_jpegs([stream.getvalue()], 32, 32, "f")
    with pytest.raises(DataError, match="image 0 cannot be decoded"):
        decode_jpegs([stream.getvalue()[:300]], 64, 64, "f")
    with pytest.raises(DataError, match="image 0 cannot be decoded"):
        decode_jpegs([b"no image"], 32, 32, "f")


def test_jpegs_become_channels_first():
    """A red picture: the first channel is high, the others low. JPEG is lossy, so within 3 levels."""
    image = pytest.importorskip("PIL.Image")
    stream = io.BytesIO()
    image.new("RGB", (32, 32), (255, 0, 0)).save(stream, "JPEG", quality=95)

    decoded = decode_jpegs([stream.getvalue()] * 2, 32, 32, "f")

    assert decoded.shape == (2, 3, 32, 32)
    assert decoded.dtype == np.uint8
    assert decoded[:, 0].min() >= 252
    assert decoded[:, 1:].max() <= 3


# The cache of decoded arrays ---------------------------------------------------------------------------------------------


@pytest.fixture
def cache_dir(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path))
    return tmp_path / "data"


def test_a_cached_array_is_made_once_and_again_for_another_origin(cache_dir):
    """Keyed by the digest of what it was made from: new data or a new decoder means a new array."""
    made = []

    def make():
        made.append(1)
        return np.arange(6).reshape(2, 3)

    first, second = data_cache.cached("a", ["v1"], make), data_cache.cached("a", ["v1"], make)
    data_cache.cached("a", ["v2"], make)

    np.testing.assert_array_equal(first, second)
    assert len(made) == 2


@pytest.mark.parametrize("damage", ["flip", "cut", "pickle"])
def test_a_damaged_cache_file_is_made_anew_and_never_unpickled(cache_dir, damage):
    """The cache lies outside the registry, where anything may happen to it."""
    data_cache.cached("a", [1], lambda: np.arange(100))
    (path,) = cache_dir.glob("*.npy")
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[:-8])
    else:
        np.save(path, np.array([{"an": "object"}], dtype=object), allow_pickle=True)

    np.testing.assert_array_equal(data_cache.cached("a", [1], lambda: np.arange(100)), np.arange(100))
    np.testing.assert_array_equal(data_cache.read(path), np.arange(100))


def test_a_cache_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    """The work goes on, but each process pays for it: that must be seen."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("HARNESS_CACHE_DIR", str(tmp_path / "file"))

    with pytest.warns(UserWarning, match="cannot be written .* set HARNESS_CACHE_DIR"):
        array = data_cache.cached("a", [1], lambda: np.arange(3))
    np.testing.assert_array_equal(array, np.arange(3))


# Generated data ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["sines", "moons", "parity"])
def test_generated_data_is_the_generators_and_nothing_elses(name):
    """Equal generators give equal rows, others give others."""
    one, same, other = (draw(name, np.random.default_rng(seed), 50) for seed in (1, 1, 2))

    np.testing.assert_array_equal(one.x, same.x)
    np.testing.assert_array_equal(one.y, same.y)
    assert not np.array_equal(one.x, other.x)


def test_sines_draws_noise_about_a_fixed_function():
    """The function does not move with the seed: without noise, equal inputs have equal targets; the noise has its size."""
    clean, noisy = (draw("sines", np.random.default_rng(7), 4000, noise=noise) for noise in (0.0, 0.3))

    np.testing.assert_array_equal(clean.x, noisy.x)
    assert abs((noisy.y - clean.y).std() - 0.3) < 0.02  # standard error of a deviation: 0.3 / sqrt(8000) = 0.0034
    assert 0.3 < clean.y.var() < 3.0  # "near 1": a target that a net with unit-scale weights can fit


def test_moons_without_noise_lie_on_their_circles():
    """The closed form: distance 1 from (0, 0) for class 0, from (1, 0.5) for class 1."""
    moons = draw("moons", np.random.default_rng(0), 100, noise=0.0)
    centres = np.array([[0.0, 0.0], [1.0, 0.5]])[moons.y]

    np.testing.assert_allclose(np.linalg.norm(moons.x - centres, axis=1), 1.0, rtol=0, atol=1e-12)  # float64 rounding


def test_parity_is_the_parity_of_the_first_bits():
    """By counting."""
    parity = draw("parity", np.random.default_rng(0), 200, bits=6, order=4)

    np.testing.assert_array_equal(parity.y, (parity.x[:, :4] < 0).sum(axis=1) % 2)
    assert set(np.unique(parity.x)) == {-1.0, 1.0}


def test_drawing_a_set_that_is_not_generated_is_refused():
    """digits cannot be drawn anew."""
    with pytest.raises(HarnessError, match="cannot draw 'digits'; it draws"):
        draw("digits", np.random.default_rng(0), 10)


def test_the_standard_librarys_text_is_text_and_its_digest_is_of_what_is_there():
    """The declared digest names rule and Python; records hold the digest of the very text."""
    text = load("stdlib-text").x

    assert len(text) > 1_000_000
    assert b"def " in text.tobytes()
    assert facts(["stdlib-text"])[0]["digest"] == hashlib.sha256(text.tobytes()).hexdigest()


# Parts -------------------------------------------------------------------------------------------------------------------


def test_sizes_of_digits_and_mnist():
    """60/20/20 without a test part of its own; 20 % of the train part where there is one. By hand."""
    assert part_sizes(1797, validation=0.25) == Sizes(1078, 360, 359)
    assert part_sizes(70_000, 10_000, validation=0.2) == Sizes(48_000, 12_000, 10_000)


def test_a_subset_counts_train_items_and_validation_shrinks_along():
    """Validating 10,000 train items on 12,000 others would cost more than the training."""
    assert part_sizes(70_000, 10_000, validation=0.2, subset=10_000, test_subset=500) == Sizes(10_000, 2_500, 500)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"items": 100, "subset": 81, "validation": 0.0}, "subset: got 81; there are 80 items"),
        ({"items": 100, "test_subset": 21}, "test_subset: got 21; there are 20 items"),
        ({"items": 2}, "each part needs one"),
    ],
)
def test_parts_that_cannot_be_are_refused_with_the_mend(asked, message):
    """At plan time, before anything is loaded."""
    with pytest.raises(HarnessError, match=message):
        part_sizes(**asked)


@settings(max_examples=60, deadline=None)
@given(
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    test=st.floats(0.05, 0.5),
    validation=st.floats(0.0, 0.5),
    seed=st.integers(0, 2**32),
)
def test_parts_are_disjoint_exact_in_size_and_in_the_shares_of_the_classes(counts, test, validation, seed):
    """For any class counts: no row twice, the promised sizes, each class within one item of its share of every draw."""
    labels = np.repeat(np.arange(len(counts)), counts)
    n = len(labels)
    try:
        sizes = part_sizes(n, test=test, validation=validation)
    except HarnessError:
        return  # a part would be empty

    parts = split(sizes, n, 0, labels, np.random.default_rng(seed))

    assert tuple(map(len, parts)) == sizes
    assert len(set(np.concatenate(parts).tolist())) == sum(sizes) == n
    in_test = np.bincount(labels[parts.test], minlength=len(counts))
    assert (np.abs(in_test - np.array(counts) * sizes.test / n) <= 1).all()
    left = np.array(counts) - in_test
    in_validation = np.bincount(labels[parts.validation], minlength=len(counts))
    assert (np.abs(in_validation - left * sizes.validation / max(n - sizes.test, 1)) <= 1).all()


def test_a_sets_own_test_part_stays_the_test_part():
    """MNIST's test images never train."""
    parts = split(Sizes(60, 20, 15), 100, 20, np.arange(100) % 4, np.random.default_rng(0))

    assert parts.test.min() >= 80
    assert max(parts.train.max(), parts.validation.max()) < 80


def test_every_row_has_the_same_chance_of_being_tested():
    """Systematic sampling from a random start: over 2,000 draws each of 20 rows is tested in 25 % of them, 5 sigma."""
    rng = np.random.default_rng(3)
    labels = np.array([0] * 13 + [1] * 7)
    hits = np.zeros(20)
    for _ in range(2000):
        hits[split(Sizes(10, 5, 5), 20, 0, labels, rng).test] += 1

    assert np.abs(hits / 2000 - 0.25).max() < 5 * np.sqrt(0.25 * 0.75 / 2000)


# The seal ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def sealed():
    load("iris")
    key = seal()
    yield key
    unseal(key)


def test_while_sealed_data_is_not_loaded_by_name(sealed):
    """A method that asks for the test part by the set's name gets an error, not the labels, even where they were preloaded."""
    for call in (lambda: load("iris"), lambda: load("digits"), lambda: preload(["wine"]), lambda: read_bytes("digits")):
        with pytest.raises(HarnessError, match="data is loaded by the task, not by the method"):
            call()


def test_sealing_forgets_what_was_read(sealed):
    """The arrays are not left in a module's variable."""
    from harness.data import store

    assert store._loaded == {}


def test_only_the_key_unseals(sealed):
    """A method could call `unseal`; without the key nothing happens."""
    with pytest.raises(HarnessError, match="the key is not the seal's"):
        unseal("0" * 32)
    with pytest.raises(HarnessError, match="sealed already"):
        seal()
    with pytest.raises(HarnessError, match="not by the method"):
        load("iris")


# What is shown and recorded ----------------------------------------------------------------------------------------------


def test_the_data_digest_is_of_names_and_contents_in_any_order():
    """Another table is another trial; another order is not."""
    assert data_digest(["wine", "iris"]) == data_digest(["iris", "wine"])
    assert data_digest(["wine"]) != data_digest(["iris"])
    assert data_digest([plugin_set(b"a")]) != data_digest([plugin_set(b"b")])


def test_rows_say_what_is_present(tmp_path):
    """Embedded and generated sets always are; the folder's only where they lie."""
    from harness.catalogue import load_catalogue

    catalogue = load_catalogue()
    rows = {row["name"]: row for row in list_rows(catalogue, tmp_path)}

    assert set(DATASETS) <= set(rows)
    assert all(rows[name]["present"] for name in EMBEDDED + GENERATED)
    assert not rows["mnist"]["present"]
    assert missing(DATASETS, tmp_path) == {name for name, s in DATASETS.items() if s.where == "folder"}
    assert missing(["a plugin's own set"], tmp_path) == frozenset()
    states = {row["name"]: row["state"] for row in verify_rows(catalogue, tmp_path)}
    assert {states[name] for name in EMBEDDED} == {"ok"}
    assert {states[name] for name in GENERATED} == {"generated"}
    assert [row["state"] for row in verify_rows(catalogue, tmp_path, ["mnist"])] == ["missing"]
    with pytest.raises(HarnessError, match="no plugin offers dataset 'nope'"):
        verify_rows(catalogue, tmp_path, ["nope"])


# The data folder ---------------------------------------------------------------------------------------------------------


FETCHED = ("fashion-mnist", "kmnist", "cifar10", "cifar100")  # the project's own folder has the others


@pytest.mark.data
@pytest.mark.parametrize("name", [name for name, s in DATASETS.items() if s.where == "folder" and not name.startswith("pmlb/")])
def test_each_set_of_the_folder_has_its_declared_digest_and_sizes(name, data_dir, cache_dir):
    """`read` compares sizes with the declared ones; the digest is compared before."""
    if name in FETCHED and missing([name], data_dir):
        pytest.skip(f"this data folder has no {name}: `harness data fetch {name}`")
    arrays = readers.read(name, data_dir)

    assert verify(name, data_dir).state == "ok"
    if arrays.classes is not None:
        assert set(np.unique(arrays.y)) == set(range(arrays.classes))


@pytest.mark.data
def test_every_table_has_its_declared_digest_and_sizes(data_dir):
    """All 124: what a plan is promised is what a trial finds."""
    small = [name for name in DATASETS if name.startswith("pmlb/") and DATASETS[name].size_bytes < 1_000_000]
    assert len(small) > 100

    for name in small:
        arrays = readers.read(name, data_dir)
        assert (len(arrays.x), arrays.x.shape[1:], arrays.classes) == (
            FACTS[name].items,
            FACTS[name].inputs,
            FACTS[name].classes,
        )
        assert len(arrays.features) == arrays.x.shape[1]


@pytest.mark.data
def test_mnist_is_what_its_page_says(data_dir):
    """The first ten train labels are known from the format's page; the images have the ink of their digits."""
    arrays = load("mnist", data_dir)

    assert arrays.y[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert arrays.image == (1, 28, 28)
    ink = [arrays.x[:60_000][arrays.y[:60_000] == digit].mean() for digit in (0, 1)]
    assert ink[0] > 2 * ink[1]  # a zero takes more than twice the ink of a one


@pytest.mark.data
def test_fsdds_test_part_is_takes_0_to_4(data_dir, cache_dir):
    """The data set's own split: 5 takes x 6 speakers x 10 digits."""
    arrays = readers.read("fsdd", data_dir)

    assert arrays.test_items == 300
    assert np.bincount(arrays.y[-300:]).tolist() == [30] * 10
    assert np.isfinite(arrays.x).all()


def test_a_tone_lights_its_own_band():
    """32 bands of 125 Hz: 1,062.5 Hz is the middle of band 8, in every frame."""
    time_s = np.arange(4000) / 8000
    pcm = (np.sin(2 * np.pi * 1062.5 * time_s) * 20000).astype("<i2").tobytes()

    spectrogram = readers.log_spectrogram(pcm)

    assert spectrogram.shape == (32, 32)
    assert (spectrogram.argmax(axis=0) == 8).all()


def test_half_a_sample_is_a_data_error():
    """16-bit samples come in pairs of bytes."""
    with pytest.raises(DataError, match="a clip of 3 bytes"):
        readers.log_spectrogram(b"abc")


def test_a_set_of_other_sizes_than_declared_is_refused(tmp_path):
    """A plan was promised shapes; data that break the promise stop the trial before it trains."""
    with pytest.raises(DataError, match="declared"):
        readers.check("iris", Arrays(np.zeros((3, 4)), np.zeros(3, np.int64), 3))


def test_reading_a_checked_file_gives_its_content(tmp_path):
    """The whole way without packing; no warning about a handle left open."""
    (tmp_path / "set.bin").write_bytes(b"x" * 10)
    set_ = plugin_set(b"x" * 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_checked(set_, File("set.bin", set_.digest, 10), tmp_path / "set.bin") == b"x" * 10
    assert dataset("iris") is DATASETS["iris"]
