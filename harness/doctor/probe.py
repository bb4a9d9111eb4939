"""`python -m harness.doctor.probe`: torch's facts and one C kernel tried, as JSON on stdout. A process of its own."""

from __future__ import annotations

import ctypes
import json
import sys
import time
from typing import Any

SOURCE = "double harness_doctor(double x) { return 2.0 * x; }\n"


def probe() -> dict[str, Any]:
    began = time.perf_counter()
    import torch

    told: dict[str, Any] = {"version": torch.__version__, "import_s": time.perf_counter() - began}
    told["cuda_build"] = torch.version.cuda
    told["capability"] = torch.backends.cpu.get_cpu_capability()
    told["devices"], told["reason"] = devices()
    told["compiler"], told["native"] = native()
    return told


def devices() -> tuple[list[str], str]:
    """The names of the GPUs that can be used, or why there are none."""
    import torch

    if not torch.version.cuda:
        return [], "this torch is built for the CPU"
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
        return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())], ""
    except (RuntimeError, AssertionError) as exc:  # the driver is missing, too old, or holds the device
        return [], str(exc).strip().splitlines()[0]


def native() -> tuple[str, str]:
    """The C compiler, and why a kernel cannot be made with it: "" where it was compiled, loaded and gave the right number."""
    from harness.lab import native as made

    try:
        compiler = made.version(made.find_compiler())
        function = made.load(SOURCE).harness_doctor
    except made.NoCompiler as exc:
        return "", str(exc)
    function.restype, function.argtypes = ctypes.c_double, [ctypes.c_double]
    return compiler, "" if function(21.0) == 42.0 else f"{compiler} compiles, and the kernel gives a wrong number"


if __name__ == "__main__":
    sys.stdout.write(json.dumps(probe()))
