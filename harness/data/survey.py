"""`python -m harness.data.survey FOLDER > harness/data/pmlb.json`: the facts of each PMLB table in FOLDER/pmlb.

Run by whoever adds tables; the result is committed, so that shapes and digests are known before anything is read.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.data.arrays import label_codes
from harness.data.formats import parse_headed_table


def survey(folder: Path) -> Iterator[dict[str, Any]]:
    """name, sha256 and size_bytes of the unpacked table, rows, features and classes of each, by name."""
    for path in sorted((folder / "pmlb").glob("*.tsv.gz")):
        content = gzip.decompress(path.read_bytes())
        names, table = parse_headed_table(content, b"\t", path.name)
        label = "target" if "target" in names else "class"
        _, classes = label_codes(table[:, names.index(label)])
        yield {
            "name": path.name.removesuffix(".tsv.gz"),
            "sha256": hashlib.sha256(content).hexdigest(),
            "size_bytes": len(content),
            "rows": len(table),
            "features": table.shape[1] - 1,
            "classes": classes,
        }


if __name__ == "__main__":
    lines = ",\n".join(json.dumps(row) for row in survey(Path(sys.argv[1])))
    sys.stdout.write(f"[\n{lines}\n]\n")
