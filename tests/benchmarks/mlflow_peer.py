"""MLflow's sqlite store, spoken to over stdin and stdout: a line of JSON in, a line of JSON out. For MLflow's Python.

`python mlflow_peer.py FOLDER`, then lines of {"do": "log", "file": JSON lines of contents}, {"do": "search"}, {"do": "board"}
or {"do": "size"}. It measures itself: sqlite works in this process, so its CPU time is all there is.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"

import mlflow  # after the settings, which it reads when imported
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

PAGE_RUNS = 5000  # of search_runs: no dearer than pages of 500 or of 50,000
BOARD_METRIC = "test.accuracy"


class Store:
    """One experiment in FOLDER/mlflow.db, made as MLflow makes it by default."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        uri = f"sqlite:///{folder / 'mlflow.db'}"
        mlflow.set_tracking_uri(uri)
        self.client = MlflowClient(uri)
        self.experiment = self.client.create_experiment("benchmark", artifact_location=str(folder / "artefacts"))

    def log(self, file: str) -> dict[str, list[float]]:
        """Runs with these contents, with the fewest calls that MLflow offers: create, one batch, terminate."""
        cpu_ms, wall_ms = [], []
        for content in map(json.loads, Path(file).read_text().splitlines()):
            cpu, wall = time.process_time(), time.perf_counter()
            self.log_run(content)
            cpu_ms.append(1e3 * (time.process_time() - cpu))
            wall_ms.append(1e3 * (time.perf_counter() - wall))
        return {"cpu_ms": cpu_ms, "wall_ms": wall_ms}

    def log_run(self, content: dict[str, Any]) -> None:
        run = self.client.create_run(self.experiment, start_time=content["time"])
        self.client.log_batch(
            run.info.run_id,
            metrics=[Metric(key, value, content["time"], step) for key, value, step in content["metrics"]],
            params=[Param(key, value) for key, value in content["params"].items()],
            tags=[RunTag(key, value) for key, value in content["tags"].items()],
        )
        self.client.set_terminated(run.info.run_id, "FINISHED", end_time=content["time"])

    def search(self) -> dict[str, float]:
        """Every run with all its parameters, tags and last metrics, as MLflow's own objects (a data frame costs more)."""
        cpu, wall = time.process_time(), time.perf_counter()
        found, token = [], None
        while True:
            page = self.client.search_runs([self.experiment], max_results=PAGE_RUNS, page_token=token)
            found += page
            token = page.token
            if not token:
                break
        used = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
        values = sum(len(run.data.params) + len(run.data.metrics) for run in found)
        return {**used, "runs": len(found), "values": values, "sum": sum(run.data.metrics[BOARD_METRIC] for run in found)}

    def board(self) -> dict[str, Any]:
        """The mean of one metric by method over the runs that are ok: MLflow filters, pandas groups."""
        cpu, wall = time.process_time(), time.perf_counter()
        frame = mlflow.search_runs([self.experiment], filter_string="tags.status = 'ok'", max_results=1_000_000)
        rows = frame.groupby("params.method")[f"metrics.{BOARD_METRIC}"].agg(["mean", "count"])
        used = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
        return {**used, "rows": [[method, float(row["mean"]), int(row["count"])] for method, row in rows.iterrows()]}

    def size(self) -> dict[str, int]:
        return {"bytes": sum(file.stat().st_size for file in self.folder.rglob("*") if file.is_file())}


def main(folder: Path) -> None:
    store = Store(folder)
    print(json.dumps({"ready": mlflow.__version__}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        answer = getattr(store, asked.pop("do"))(**asked)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
