"""The timer of CUDA on a device that the test turns by hand; the CPU's on this one; what a driver tells."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from harness.kernels.nvml import gpu_name, read_state
from harness.kernels.timers import GRAPH_BELOW_S, MAX_HOLD_S, device_state, make_timer, measure_on, own_stream
from harness.timing import StopRule

US = 1e-6
QUICK = StopRule(limit_s=2.0, min_total_s=0.01, warmup_s=0.002)


class FakeGpu:
    """A host and a device, each with a clock of its own; the device does what is queued, in order, as soon as it can.

    kernel_s: one call with a warm cache; cold_s: with a flushed one.   launch_s: what one call costs the host.
    gap_s: between two calls that come one by one.   first_s: what the host needs for the first call (a compiler, say).
    refuses: what a capture raises.   waits: whether each call waits for the device.
    """

    def __init__(self, kernel_s: float, *, cold_s: float | None = None, launch_s: float = 8 * US, gap_s: float = 0.0,
                 first_s: float = 0.0, refuses: Exception | None = None, waits: bool = False) -> None:  # fmt: skip
        self.kernel_s, self.cold_s = kernel_s, kernel_s if cold_s is None else cold_s
        self.launch_s, self.gap_s, self.first_s, self.refuses = launch_s, gap_s, first_s, refuses
        self.waits = waits
        self.host = self.device = 50.0
        self.is_cold = True
        self.calls = 0
        self.captured: list[int] = []
        self.log: list[str] = []
        self.holds: list[float] = []

    def now(self) -> float:
        return self.host

    def fn(self) -> None:
        self.log.append("call")
        self.host += self.launch_s if self.calls else self.first_s + self.launch_s
        self.calls += 1
        self._do((self.cold_s if self.is_cold else self.kernel_s) + self.gap_s)
        self.is_cold = False
        if self.waits:
            self.host = max(self.host, self.device)

    def _do(self, seconds: float) -> None:
        self.device = max(self.device, self.host) + seconds

    def mark(self) -> float:
        self.log.append("mark")
        self._do(0.0)
        return self.device

    def elapsed_s(self, before: float, after: float) -> float:
        assert max(before, after) <= self.host, "a mark is read before it has been passed"
        return after - before

    def wait(self) -> None:
        self.log.append("wait")
        self.host = max(self.host, self.device)

    def flush(self) -> None:
        self.log.append("flush")
        self.is_cold = True
        self._do(30 * US)

    def hold(self, seconds: float) -> None:
        self.log.append("hold")
        self.holds.append(seconds)
        self._do(seconds)

    def capture(self, fn: Callable[[], object], calls: int) -> Callable[[], object]:
        if self.refuses is not None:
            raise self.refuses
        self.captured.append(calls)

        def replay() -> None:
            self.log.append("replay")
            self.host += 5 * US
            self._do(1 * US + calls * self.kernel_s)  # a graph costs the device about a microsecond to start

        return replay


def time_it(gpu: FakeGpu, cold: bool = False, rule: StopRule = QUICK):
    return measure_on(gpu, gpu.fn, rule, cold=cold, wall=gpu.now, cpu=gpu.now)


@pytest.mark.parametrize("kernel_s", [25 * US, 150 * US, 4e-3])
def test_long_calls_are_timed_by_events_to_within_a_hundredth(kernel_s):
    """Several of them a sample where they are not long themselves; the host's way of launching is not in the figure."""
    gpu = FakeGpu(kernel_s)

    samples = time_it(gpu)

    assert samples.launch == "events"
    assert samples.clock == "device"
    assert not gpu.captured
    assert statistics.median(samples.wall_s) == pytest.approx(kernel_s, rel=0.01)
    assert statistics.median(samples.cpu_s) == pytest.approx(gpu.launch_s, rel=0.01)  # the host's time, kept beside it


@pytest.mark.parametrize("kernel_s", [1 * US, 5 * US, 15 * US])
def test_calls_too_short_for_the_host_are_replayed_from_a_graph(kernel_s):
    """One by one they would be as long as the host takes to launch them, 8 us here."""
    gpu = FakeGpu(kernel_s)

    samples = time_it(gpu)

    assert samples.launch == f"graph of {samples.calls_per_sample} calls"
    assert samples.calls_per_sample > 1
    assert statistics.median(samples.wall_s) == pytest.approx(kernel_s, rel=0.01)
    assert kernel_s < GRAPH_BELOW_S


def test_the_graph_is_made_anew_where_calls_are_shorter_than_they_seemed():
    """One by one each call has a gap of 9 us; a graph for calls of 10 us would be over in a tenth of a sample."""
    gpu = FakeGpu(1 * US, gap_s=9 * US)

    samples = time_it(gpu)

    assert len(gpu.captured) == 2
    assert gpu.captured[0] < 100 < samples.calls_per_sample
    assert statistics.median(samples.wall_s) == pytest.approx(1 * US, rel=0.01)


def test_what_cannot_be_captured_is_timed_behind_a_hold_and_says_why():
    """A call that waits for the device, say. Its time is still the device's: the launches are queued before it may begin."""
    gpu = FakeGpu(2 * US, refuses=RuntimeError("operation not permitted when stream is capturing\nmore"))

    samples = time_it(gpu)

    assert samples.launch == "events, no graph: RuntimeError: operation not permitted when stream is capturing"
    assert statistics.median(samples.wall_s) == pytest.approx(2 * US, rel=0.01)
    assert max(gpu.holds) <= MAX_HOLD_S


def test_cold_calls_find_a_flushed_cache_and_the_flush_is_not_timed():
    """Flush, then hold, then the clock, then one call: any other order times the flush, or the host, or a warm cache."""
    gpu = FakeGpu(2 * US, cold_s=7 * US)

    samples = time_it(gpu, cold=True)

    assert statistics.median(samples.wall_s) == pytest.approx(7 * US, rel=0.01)
    assert samples.calls_per_sample == 1
    assert not gpu.captured
    assert gpu.log[-7:] == ["wait", "flush", "hold", "mark", "call", "mark", "wait"]


@pytest.mark.parametrize("cold", [True, False])
def test_warm_up_is_made_as_the_samples_are(cold):
    """Else the first samples would see another machine than the last: every call has its flush, or none has."""
    gpu = FakeGpu(100 * US, cold_s=130 * US)

    samples = time_it(gpu, cold)

    assert gpu.log.count("call") == samples.warmup + len(samples.wall_s) * samples.calls_per_sample
    assert gpu.log.count("flush") == (gpu.log.count("call") if cold else 0)
    assert samples.wall_s[0] == pytest.approx(130 * US if cold else 100 * US, rel=0.01)


def test_a_first_call_that_compiles_is_no_sample_and_holds_nothing_up():
    """It takes the host a second: a device held for so long would time nothing but its own waiting."""
    gpu = FakeGpu(100 * US, first_s=1.0)

    samples = time_it(gpu)

    assert max(samples.wall_s) < 110 * US
    assert max(gpu.holds) <= MAX_HOLD_S
    assert min(gpu.holds) < 100 * US
    assert samples.stop_reason == "precise"


def test_a_call_that_waits_for_the_device_is_not_held_up_longer_and_longer():
    """The hold then is a part of what its launch takes; the next hold must not be made for that."""
    gpu = FakeGpu(100 * US, waits=True)

    samples = time_it(gpu)

    assert max(gpu.holds) < 2e-3  # five calls of 108 us a sample, twice, and the reserve
    assert statistics.median(samples.wall_s) == pytest.approx(100 * US, rel=0.1)  # the host's launches stand between them


def test_the_limit_is_one_of_wall_time_whatever_the_device_says():
    """Calls that cost the host a tenth of a second each must not go on until the device has worked for long enough."""
    gpu = FakeGpu(1e-3, launch_s=0.1)

    samples = time_it(gpu)

    assert samples.stop_reason == "time_limit"
    assert gpu.host - 50.0 == pytest.approx(2.0, abs=0.3)  # a call and its hold are over before anybody looks


def test_a_kernel_that_launches_nothing_ends():
    """0 elements: the device's clock stands still, and no number of calls fills a sample."""
    gpu = FakeGpu(0.0, refuses=UserWarning("The CUDA Graph is empty"))

    samples = time_it(gpu)

    assert samples.stop_reason == "time_limit"
    assert "The CUDA Graph is empty" in samples.launch
    assert set(samples.wall_s) == {0.0}


def test_on_a_cpu_the_timer_is_the_one_of_harness_timing():
    """Wall and process time, page faults, no device."""
    samples = make_timer(torch.device("cpu"))(lambda: sum(range(100)), StopRule(limit_s=0.2))

    assert samples.clock == "host"
    assert samples.launch == ""
    assert samples.faults_per_call is not None
    assert samples.faults_per_call < 1
    assert len(samples.cpu_s) == len(samples.wall_s)


def test_cold_on_a_cpu_is_refused():
    """Nothing flushes a CPU's cache here: the figures would be hot, under the name of cold."""
    with pytest.raises(ValueError, match="cold timing is of CUDA"):
        make_timer(torch.device("cpu"), cold=True)


# The driver -------------------------------------------------------------------------------------------------------------


class NvmlError(Exception):
    """As pynvml's."""


def fake_nvml(**changes: object) -> SimpleNamespace:
    """pynvml's names with one GPU, "GPU-1", that is held down by its power limit. It has no function that sets anything."""

    def handle(uuid: str) -> str:
        if uuid != "GPU-1":
            raise NvmlError("not found")
        return "gpu"

    names: dict[str, object] = {
        "NVMLError": NvmlError,
        "open": [],
        "NVML_CLOCK_SM": 1,
        "NVML_CLOCK_MEM": 2,
        "NVML_TEMPERATURE_GPU": 0,
        "nvmlClocksThrottleReasonNone": 0,
        "nvmlClocksThrottleReasonGpuIdle": 1,
        "nvmlClocksThrottleReasonSwPowerCap": 4,
        "nvmlClocksThrottleReasonHwSlowdown": 8,
        "nvmlClocksThrottleReasonAll": 13,
        "nvmlDeviceGetHandleByUUID": handle,
        "nvmlDeviceGetHandleByIndex": lambda index: "gpu",
        "nvmlDeviceGetName": lambda gpu: "NVIDIA H200",
        "nvmlDeviceGetClockInfo": lambda gpu, clock: {1: 1410, 2: 2619}[clock],
        "nvmlDeviceGetMaxClockInfo": lambda gpu, clock: 1980,
        "nvmlDeviceGetTemperature": lambda gpu, sensor: 61,
        "nvmlDeviceGetPowerUsage": lambda gpu: 698_000,
        "nvmlDeviceGetCurrentClocksThrottleReasons": lambda gpu: 1 | 4,
    }
    made = SimpleNamespace(**{**names, **changes})
    made.nvmlInit = changes.get("nvmlInit", lambda: made.open.append(1))
    made.nvmlShutdown = lambda: made.open.pop()
    return made


def test_the_state_of_a_gpu_is_told_in_si_units_with_what_holds_its_clock_down():
    """A kernel that is slow because the card was at its power limit must be seen to be so; an idle card is no reason."""
    nvml = fake_nvml()

    state = read_state(nvml, "GPU-1")

    assert state == {
        "sm_clock_hz": 1.41e9, "sm_clock_max_hz": 1.98e9, "memory_clock_hz": 2.619e9, "temperature_c": 61.0, "power_w": 698.0,
        "throttle": "SwPowerCap",
    }  # fmt: skip
    assert gpu_name(nvml) == "NVIDIA H200"
    assert not nvml.open  # what was opened is closed


def refuse(*arguments: object) -> None:
    raise NvmlError("not supported")


def test_what_a_driver_does_not_tell_is_left_out():
    """A consumer card has no power reading; a virtual one nothing at all; without a driver there is nobody to ask."""
    without_power = read_state(fake_nvml(nvmlDeviceGetPowerUsage=refuse), "GPU-1")

    assert "power_w" not in without_power
    assert without_power["sm_clock_hz"] == 1.41e9
    assert read_state(fake_nvml(), "GPU-of-another") == {}
    assert read_state(fake_nvml(nvmlInit=refuse), "GPU-1") == {}
    assert gpu_name(fake_nvml(nvmlInit=refuse)) == ""
    assert gpu_name(fake_nvml(nvmlDeviceGetName=refuse)) == ""


def test_a_cpu_has_no_state_to_read():
    """And no GPU is looked for, nor CUDA started, to find that out."""
    assert device_state(torch.device("cpu")) == {}


# A real device ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def cuda() -> torch.device:
    return torch.device("cuda")


@pytest.mark.cuda
def test_a_short_copy_takes_no_longer_on_a_device_than_its_launch(cuda):
    """1,000 floats: a microsecond or two by graph, 5 and more one by one."""
    source, target = torch.ones(1000, device=cuda), torch.zeros(1000, device=cuda)

    samples = make_timer(cuda)(lambda: target.copy_(source), QUICK)

    assert samples.launch.startswith("graph of")
    assert statistics.median(samples.wall_s) < 5 * US


@pytest.mark.cuda
def test_a_flushed_cache_makes_a_copy_that_fits_into_it_slower(cuda):
    """Else the flush flushes nothing."""
    elements = torch.cuda.get_device_properties(cuda).L2_cache_size // 16
    source, target = torch.ones(elements, device=cuda), torch.zeros(elements, device=cuda)

    hot, cold = (make_timer(cuda, cold)(lambda: target.copy_(source), QUICK) for cold in (False, True))

    assert statistics.median(cold.wall_s) > 1.2 * statistics.median(hot.wall_s)


@pytest.mark.cuda
def test_a_capture_that_fails_leaves_the_stream_as_it_was(cuda):
    """torch leaves its own stream current: all that comes after would run beside what it depends on."""
    x = torch.ones(10, device=cuda)
    before = torch.cuda.current_stream(cuda)

    samples = make_timer(cuda)(lambda: x.sum().item(), QUICK)

    assert "no graph" in samples.launch
    assert torch.cuda.current_stream(cuda) == before
    assert x.add(1).sum().item() == 20


@pytest.mark.cuda
def test_a_backward_pass_of_a_kept_graph_can_be_captured_on_a_stream_of_its_own(cuda):
    """autograd runs it on the stream of the forward pass, and the default stream cannot be captured."""
    with own_stream(cuda):
        x = torch.randn(1000, device=cuda, requires_grad=True)
        y = torch.sigmoid(x)
        upstream = torch.ones_like(y)

        samples = make_timer(cuda)(lambda: torch.autograd.grad(y, x, upstream, retain_graph=True), QUICK)

    assert samples.launch.startswith("graph of")


@pytest.mark.cuda
def test_the_state_of_this_device_can_be_read(cuda):
    """Where the driver lets: an empty answer on a card of our own means a wrong UUID."""
    pytest.importorskip("pynvml")

    assert device_state(cuda)["sm_clock_max_hz"] > 1e8
