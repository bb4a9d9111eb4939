"""The command line: parse, call the stages in order, print, exit. Results on stdout, progress and warnings on stderr."""

from harness.cli.main import main

__all__ = ["main"]
