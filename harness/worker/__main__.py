"""`python -m harness.worker SPEC OUT`: one trial in a process of its own."""

import os

from harness.worker.trial import flush_streams, main

if __name__ == "__main__":
    # os._exit: a thread or an exit handler of a plugin must not keep the process alive, nor change its code.
    code = main()
    flush_streams()
    os._exit(code)
