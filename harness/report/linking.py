"""Which page shows what: file names and anchors, from names and keys alone, so that they are the same in every report."""

from __future__ import annotations

from collections.abc import Sequence

from harness.kernelboard import KernelBoard
from harness.leaderboard import Board
from harness.report.collecting import Collected
from harness.report.words import anchor, file_name


def board_anchor(board: Board) -> str:
    return anchor("board", board.task, sorted(map(str, board.shared.items())))


def board_href(board: Board) -> str:
    return f"leaderboard.html#{board_anchor(board)}"


def attempts_file(board: Board) -> str:
    return file_name("attempts", board.task, sorted(map(str, board.shared.items())))


def attempts_href(board: Board, method: str) -> str:
    return f"{attempts_file(board)}#{anchor(method)}"


def kernel_anchor(board: KernelBoard) -> str:
    return anchor("kernel", sorted(map(str, board.shared.items())))


def kernel_href(board: KernelBoard) -> str:
    return f"kernels.html#{kernel_anchor(board)}"


def kernel_attempts_file(board: KernelBoard) -> str:
    return file_name("attempts-kernel", board.kernel.rpartition("/")[2], sorted(map(str, board.shared.items())))


def kernel_attempts_href(board: KernelBoard, case: str, implementation: str) -> str:
    return f"{kernel_attempts_file(board)}#{anchor(case, implementation)}"


def method_file(ref: str) -> str:
    return file_name("method", ref.rpartition("/")[2], ref)


def claim_anchor(claim: str) -> str:
    return anchor("claim", claim)


def machine_href(name: str) -> str:
    return f"machines.html#{anchor('machine', name)}"


def suites_of(found: Collected, ids: Sequence[str]) -> list[str]:
    return sorted({str(found.attempts[id]["suite"]) for id in ids if id in found.attempts})
