"""pytest-benchmark's JSON: our attempts as such a file (`export_session`), and such a file as attempts (`import_session`)."""

from harness.exporting.pytest_benchmark.incoming import Imported, attempts_of, import_session
from harness.exporting.pytest_benchmark.outgoing import Exported, export_session
from harness.exporting.pytest_benchmark.session import Benchmark, Session, read_session

__all__ = ["Benchmark", "Exported", "Imported", "Session", "attempts_of", "export_session", "import_session", "read_session"]
