"""A disk that fails: the n-th call of `harness.registry.io` raises, for n = 1, 2, ..., once or from then on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from harness.errors import RegistryError
from harness.registry import Registry, io


class Stop(BaseException):
    """The process dies here: nothing after it runs, no handler of the registry may stop it."""


def failing_at(monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException) -> list[str]:
    """Let the number-th call of harness.registry.io raise; what was called so far."""
    calls: list[str] = []

    def wrap(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            calls.append(name)
            if len(calls) == number or (isinstance(error, Stop) and len(calls) > number):
                raise error
            return real(*arguments)

        return call

    for name in io.OPERATIONS:
        monkeypatch.setattr(io, name, wrap(name, getattr(io, name)))
    return calls


def each_failure(
    error: BaseException, prepare: Callable[[int], Registry], act: Callable[[Registry], Any], step: int = 1
) -> Iterator[Registry]:
    """For n = 1, 2, ...: a fresh registry whose n-th disk call during `act` raises; ends when `act` needs fewer calls.

    step: every how manieth call, for a quick look.
    """
    for number in range(1, 1000, step):
        registry = prepare(number)
        with pytest.MonkeyPatch.context() as patch:
            calls = failing_at(patch, number, error)
            try:
                act(registry)
                done = len(calls) < number
            except (RegistryError, Stop):
                done = False
        yield registry
        if done:
            return
    raise AssertionError("never ended")


# Each call for a night, every seventh for `make test`.
EACH_CALL = [pytest.param(7, id="every seventh"), pytest.param(1, id="each", marks=pytest.mark.slow)]


@pytest.fixture
def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flushing takes most of a test's time, and decides nothing unless the power is cut: tests/faults does that."""
    for name in ("fsync", "fsync_dir"):
        monkeypatch.setattr(io, name, lambda _: None)


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail
