"""The clocks and the throttling of an NVIDIA GPU, as its driver tells them (NVML). Reads; never sets anything. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

State = dict[str, float | str]
PREFIX = "nvmlClocksThrottleReason"  # then the reason's name: SwPowerCap, HwThermalSlowdown, ...
HARMLESS = ("None", "All", "GpuIdle")  # a GPU that has nothing to do runs slow, and wakes up with the work


def read_state(nvml: Any, uuid: str) -> State:
    """What can be read of the GPU of that UUID ("GPU-..."), in SI units; {} where there is no driver or no such GPU.

    nvml: the module pynvml. sm_clock_hz, memory_clock_hz: now; sm_clock_max_hz: the most it is built for; temperature_c;
    power_w; throttle: why the clock is held down, by NVML's names and sorted, "" where it is not. A reading that this GPU does
    not offer is left out.
    """
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return {}
    try:
        gpu = nvml.nvmlDeviceGetHandleByUUID(uuid)
        read: dict[str, Callable[[], float | str]] = {
            "sm_clock_hz": lambda: 1e6 * nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_SM),
            "sm_clock_max_hz": lambda: 1e6 * nvml.nvmlDeviceGetMaxClockInfo(gpu, nvml.NVML_CLOCK_SM),
            "memory_clock_hz": lambda: 1e6 * nvml.nvmlDeviceGetClockInfo(gpu, nvml.NVML_CLOCK_MEM),
            "temperature_c": lambda: float(nvml.nvmlDeviceGetTemperature(gpu, nvml.NVML_TEMPERATURE_GPU)),
            "power_w": lambda: 1e-3 * nvml.nvmlDeviceGetPowerUsage(gpu),
            "throttle": lambda: " ".join(throttle_reasons(nvml, nvml.nvmlDeviceGetCurrentClocksThrottleReasons(gpu))),
        }
        return {name: value for name, ask in read.items() if (value := answer(nvml, ask)) is not None}
    except nvml.NVMLError:
        return {}
    finally:
        nvml.nvmlShutdown()


def gpu_name(nvml: Any) -> str:
    """The name of the first GPU, "" where there is none or no driver."""
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ""
    try:
        return str(nvml.nvmlDeviceGetName(nvml.nvmlDeviceGetHandleByIndex(0)))
    except nvml.NVMLError:
        return ""
    finally:
        nvml.nvmlShutdown()


def answer(nvml: Any, ask: Callable[[], float | str]) -> float | str | None:
    """None where this GPU, or this driver, does not tell."""
    try:
        return ask()
    except nvml.NVMLError:
        return None


def throttle_reasons(nvml: Any, bits: int) -> list[str]:
    """The names of the reasons that are set."""
    names = {name.removeprefix(PREFIX): getattr(nvml, name) for name in dir(nvml) if name.startswith(PREFIX)}
    return sorted(name for name, bit in names.items() if name not in HARMLESS and isinstance(bit, int) and bits & bit)
