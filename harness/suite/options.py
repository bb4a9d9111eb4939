"""`--set path=value`: options that go into the raw tree after the file has been read."""

from __future__ import annotations

import re
from typing import Any

from harness.suite.text import Document, Loc, Mistake, Value, dotted, read_value

MAX_CHARACTERS = 16_384  # of a value: several options together must not cost more than a file may

_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(\.[A-Za-z_][A-Za-z0-9_-]*|\[[0-9]{1,6}\])*")
_STEP = re.compile(r"([A-Za-z_][A-Za-z0-9_-]*)|\[([0-9]+)\]")


def apply_override(document: Document, option: str) -> None:
    """Put the value of one `path=value` into the tree; what is wrong with the option goes to the document's mistakes."""
    path, equals, text = option.partition("=")
    if not equals or not _PATH.fullmatch(path):
        document.mistakes.append(Mistake(option, "", "write path=value, such as seeds=3 or methods[0].params.eps=0.1"))
        return
    if len(text) > MAX_CHARACTERS:
        wrong = f"the value has {len(text)} characters; an option has at most {MAX_CHARACTERS}: write it into the suite file"
        document.mistakes.append(Mistake(option, "", wrong))
        return
    given = read_value(text)
    loc: Loc = tuple(name or int(index) for name, index in _STEP.findall(path))
    if given.mistakes:
        document.mistakes += [Mistake(option, path + m.path, m.text) for m in given.mistakes]
        return
    if wrong := _put(document, loc, given.data, option):
        document.mistakes.append(Mistake(option, path, wrong))
        return
    for old in [known for known in document.origins if known[: len(loc)] == loc]:
        del document.origins[old]
    document.unread = {bad for bad in document.unread if bad[: len(loc)] != loc}
    document.origins.update({(*loc, *below): option for below in given.origins})
    document.origins[loc] = option


def _put(document: Document, loc: Loc, value: Value, option: str) -> str:
    """Set a value, making mappings on the way. Returns what is wrong with the path, "" where nothing is."""
    node: Any = document.data
    for depth, step in enumerate(loc):
        here = dotted(loc[:depth]) or "the suite"
        if isinstance(step, int) and not (isinstance(node, list) and step < len(node)):
            size = f"has {len(node)} entries, counted from 0" if isinstance(node, list) else "is no list"
            return f"{here} {size}; nothing stands at [{step}]"
        if isinstance(step, str) and not isinstance(node, dict):
            mend = f"; write {here}[0].{step}" if isinstance(node, list) else ""
            return f"{here} is no mapping, so it has no key {step!r}{mend}"
        if depth == len(loc) - 1:
            node[step] = value
        elif isinstance(step, str) and node.get(step) is None:
            node[step] = {}
            document.origins[loc[: depth + 1]] = option
        elif _is_short_entry(loc[: depth + 1], node[step]):
            node[step] = {"use": node[step]}
        node = node[step]
    return ""


def _is_short_entry(loc: Loc, value: Any) -> bool:
    """Whether this is a task or a method written as its bare name."""
    return len(loc) == 2 and loc[0] in ("tasks", "methods") and isinstance(value, str)
