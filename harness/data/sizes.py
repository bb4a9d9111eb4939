"""Sizes of train, validation and test parts, known without the data. Imports no NumPy: a plan asks for every shape.

They depend on the numbers of items only, never on labels or seeds.
"""

from __future__ import annotations

from typing import NamedTuple

from harness.errors import HarnessError


class Sizes(NamedTuple):
    """Items of each part."""

    train: int
    validation: int
    test: int


def part_sizes(
    items: int,
    test_items: int = 0,
    *,
    test: float = 0.2,
    validation: float = 0.2,
    subset: int | None = None,
    test_subset: int | None = None,
) -> Sizes:
    """How many items each part gets.

    test_items: the set's own test part; where it is 0, the share `test` of all items is drawn for it. validation: its share
    of what is not test. subset: train items to keep; validation shrinks along, so that it stays that share. test_subset:
    test items to keep. Raises HarnessError where a part would be empty or has fewer items than asked for.
    """
    test_size = test_items or _rounded(items * test)
    pool = items - test_size
    validation_size = _rounded(pool * validation)
    train_size = pool - validation_size
    if subset is not None:
        _require("subset", subset, train_size)
        train_size = subset
        validation_size = min(validation_size, _rounded(subset * validation / (1 - validation)))
    if test_subset is not None:
        _require("test_subset", test_subset, test_size)
        test_size = test_subset
    if min(train_size, test_size) < 1 or (validation > 0 and validation_size < 1):
        raise HarnessError(
            f"{items} items give {train_size} for train, {validation_size} for validation, {test_size} for test; "
            f"each part needs one: change the shares or the subset"
        )
    return Sizes(train_size, validation_size, test_size)


def _require(field: str, asked: int, there: int) -> None:
    if asked > there:
        raise HarnessError(f"{field}: got {asked}; there are {there} items: use at most {there}, or null for all")


def _rounded(number: float) -> int:
    return int(number + 0.5)
