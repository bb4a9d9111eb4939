"""The contract's checks: every planted plugin is caught by the check that is meant for it and by no other; good ones pass."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import PluginSite, open_plugin_site

from harness.catalogue import load_catalogue
from harness.errors import HarnessError
from harness.testing import (
    CHECKS,
    NonConformant,
    Report,
    check_kernel,
    check_method,
    check_task,
    examine_kernel,
    examine_method,
    examine_plugin,
    examine_task,
)
from harness.testing.watching import digest_of, kept_state

DECLARED = '''
    """Methods that each break the contract in one way, and one that keeps it."""
    from pydantic import Field

    import harness

    class Told(harness.Params):
        scale: float = Field(1.0, description="what the input is multiplied with")

    class Untold(harness.Params):
        scale: float = 1.0

    LEARNERS = LEARNER_NAMES
    ACTIVATIONS = ACTIVATION_NAMES

    @harness.hookimpl
    def harness_methods():
        made = [harness.Learner(name, "classify", solve=f"NAME_code:{name}", summary="of a test") for name in LEARNERS]
        made += [harness.Component(name, "activation", build=f"NAME_code:{name}", params=Told, summary="of a test")
                 for name in ACTIVATIONS]
        return made + [harness.Component("untold", "activation", build="NAME_code:honest_activation", params=Untold,
                                         summary="its parameter is not described")]
'''

CODE = '''
    import os, sys, threading, time
    import torch
    from torch import nn
    from harness import BudgetSpentForTests, data

    class Linear:
        def __init__(self, weight, bias):
            self.weight, self.bias = weight, bias

        def predict(self, x):
            return x.flatten(1) @ self.weight.to(x.dtype).T + self.bias.to(x.dtype)

    def trained(problem, ctx, generator):
        """Softmax regression from random weights: honest where its generator is."""
        x = problem.x.flatten(1)
        weight = (0.1 * torch.randn(problem.classes, x.shape[1], generator=generator)).to(x.dtype)
        bias = torch.zeros(problem.classes, dtype=x.dtype)
        target = torch.nn.functional.one_hot(problem.y, problem.classes).to(x.dtype)
        solution = Linear(weight, bias)
        ctx.offer(solution)
        for _ in range(10):
            ctx.spend(samples_seen=len(x), steps=1)
            gap = (x @ weight.T + bias).softmax(1) - target
            weight, bias = weight - gap.T @ x / len(x), bias - gap.mean(0)
            solution = Linear(weight, bias)
        return solution

    def honest(problem, ctx, params):
        return trained(problem, ctx, ctx.generator("weights"))

    def centroid(problem, ctx, params):
        """Honest, and draws nothing."""
        x = problem.x.flatten(1)
        means = torch.stack([x[problem.y == c].mean(0) for c in range(problem.classes)])
        return Linear(2 * means, -(means**2).sum(1))

    def unseeded(problem, ctx, params):
        return trained(problem, ctx, torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "little")))

    def counts_its_calls(problem, ctx, params, calls=[0]):
        calls[0] += 1
        return trained(problem, ctx, ctx.generator(f"weights/{calls[0]}"))

    def own_seed(problem, ctx, params):
        return trained(problem, ctx, torch.Generator().manual_seed(1234))

    class Halved(Linear):
        def predict(self, x):
            return super().predict(x).to(torch.float32)

    def single(problem, ctx, params):
        made = honest(problem, ctx, params)
        return Halved(made.weight, made.bias)

    class Peeking(Linear):
        """Reads the labels of the held part out of the frame that calls it."""

        def predict(self, x):
            logits, frame = super().predict(x), sys._getframe(1)
            while frame is not None:
                part = frame.f_locals.get("part") if frame.f_code.co_name == "score" else None
                if isinstance(part, dict) and len(part.get("y", ())) == len(x):
                    return logits + 1000 * nn.functional.one_hot(part["y"], logits.shape[1]).to(logits.dtype)
                frame = frame.f_back
            return logits

    def peeks(problem, ctx, params):
        made = honest(problem, ctx, params)
        return Peeking(made.weight, made.bias)

    class Knowing(Linear):
        """Looks the items up in scikit-learn's copy of the data: it knows all labels from elsewhere, whatever it was given."""

        def predict(self, x):
            from sklearn.datasets import load_digits

            known = load_digits()
            levels = torch.from_numpy(known.data).double()
            mean, spread = levels.mean(0), levels.std(0).clamp_min(1e-9)
            mine = (x.flatten(1).double() - x.flatten(1).double().mean(0)) / x.flatten(1).double().std(0).clamp_min(1e-9)
            near = torch.cdist(mine, (levels - mean) / spread).argmin(1)
            return 10 * nn.functional.one_hot(torch.from_numpy(known.target)[near], 10).to(x.dtype)

    def knows(problem, ctx, params):
        made = honest(problem, ctx, params)
        return Knowing(made.weight, made.bias)

    def asks_for_data(problem, ctx, params):
        for attempt in (lambda: data.load("digits"), lambda: ctx.rng("split")):
            try:
                attempt()
            except Exception:
                pass
        return honest(problem, ctx, params)

    def standardises_in_place(problem, ctx, params):
        problem.x.sub_(problem.x.mean(0)).mul_(0.9)
        return honest(problem, ctx, params)

    def leaves_threads(problem, ctx, params):
        torch.set_num_threads(torch.get_num_threads() + 1)
        return honest(problem, ctx, params)

    def changes_folder(problem, ctx, params):
        os.chdir("/")
        return honest(problem, ctx, params)

    def seeds_globally(problem, ctx, params):
        torch.manual_seed(ctx.stream_seed("weights"))
        return trained(problem, ctx, None)

    class Forgetful(Linear):
        def __getstate__(self):
            return {"weight": self.weight, "bias": torch.ones_like(self.bias).cumsum(0)}

    def forgets(problem, ctx, params):
        made = honest(problem, ctx, params)
        return Forgetful(made.weight, made.bias)

    def swallows_the_end(problem, ctx, params):
        solution = honest_start = Linear(torch.zeros(problem.classes, problem.x[0].numel()), torch.zeros(problem.classes))
        ctx.offer(solution)
        generator = ctx.generator("weights")
        for _ in range(20):
            try:
                ctx.spend(samples_seen=len(problem.x), steps=1)
            except BaseException:
                pass
            time.sleep(0.05)
        return trained_quietly(problem, generator)

    def trained_quietly(problem, generator):
        class Quiet:
            def spend(self, **units): pass
            def offer(self, solution): pass
        return trained(problem, Quiet(), generator)

    def works_in_the_background(problem, ctx, params):
        made = honest(problem, ctx, params)
        threading.Thread(target=time.sleep, args=(3,), daemon=True, name="late worker").start()
        return made

    class Lazy:
        """Trains when it is asked for the first time."""

        def __init__(self, problem, generator):
            self.problem, self.generator, self.made = problem, generator.get_state(), None

        def predict(self, x):
            if self.made is None:
                generator = torch.Generator()
                generator.set_state(self.generator)
                self.made = trained_quietly(self.problem, generator)
            return self.made.predict(x)

    def trains_in_predict(problem, ctx, params):
        return Lazy(problem, ctx.generator("weights"))

    class Scaled(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(float(scale)))

        def forward(self, x):
            return self.scale * x * x.sigmoid()

    def honest_activation(place, params):
        return Scaled(params.scale)

    class Single(Scaled):
        def forward(self, x):
            return super().forward(x).float()

    def single_activation(place, params):
        return Single(params.scale)

    class OnTheCpu(Scaled):
        def forward(self, x):
            return super().forward(x) + torch.zeros(x.shape[-1], dtype=x.dtype, device="cpu")

    def cpu_activation(place, params):
        return OnTheCpu(params.scale)

    class InPlace(Scaled):
        def forward(self, x):
            x.clamp_(min=-3)
            return super().forward(x)

    def inplace_activation(place, params):
        return InPlace(params.scale)

    class Unregistered(Scaled):
        def __init__(self, scale):
            super().__init__(scale)
            self.offset = torch.randn(())

        def forward(self, x):
            return super().forward(x) + self.offset.to(x)

    def unregistered_activation(place, params):
        return Unregistered(params.scale)

    class Seeded(Scaled):
        def __init__(self, scale):
            super().__init__(scale)
            generator = torch.Generator().manual_seed(7)
            self.register_buffer("offset", torch.randn((), generator=generator))

        def forward(self, x):
            return super().forward(x) + self.offset

    def seeded_activation(place, params):
        return Seeded(params.scale)

    def raises(problem, ctx, params):
        raise ValueError("boom")
'''.replace("from harness import BudgetSpentForTests, data", "from harness import data")

BAD_LEARNERS = {
    "unseeded": "same_seed",
    "counts_its_calls": "same_seed",
    "own_seed": "other_seed",
    "single": "dtype",
    "peeks": "shuffled_labels",
    "knows": "shuffled_labels",
    "asks_for_data": "test_part",
    "standardises_in_place": "inputs_kept",
    "leaves_threads": "state_restored",
    "changes_folder": "state_restored",
    "seeds_globally": "state_restored",
    "forgets": "save_load",
    "swallows_the_end": "clock",
    "works_in_the_background": "clock",
    "trains_in_predict": "clock",
    "raises": "runs",
}
BAD_COMPONENTS = {
    "untold": "documented",
    "single_activation": "dtype",
    "cpu_activation": "device",
    "inplace_activation": "inputs_kept",
    "unregistered_activation": "save_load",
    "seeded_activation": "other_seed",
}
GOOD = ("honest", "centroid", "honest_activation")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginSite]:
    learners = [*BAD_LEARNERS, "honest", "centroid"]
    activations = [name for name in (*BAD_COMPONENTS, "honest_activation") if name != "untold"]
    declared = DECLARED.replace("LEARNER_NAMES", repr(learners)).replace("ACTIVATION_NAMES", repr(activations))
    with open_plugin_site(tmp_path_factory.mktemp("planted") / "site") as made:
        made.write("planted", declared, CODE)
        yield made


def caught(report: Report) -> set[str]:
    return {finding.check for finding in report.findings}


@pytest.mark.parametrize("name", [*BAD_LEARNERS, *BAD_COMPONENTS])
def test_every_planted_method_is_caught_by_its_check_and_by_no_other(name, site):
    """A check that also fires for another's fault sends the author to the wrong place."""
    report = examine_method(name)

    assert caught(report) == {(BAD_LEARNERS | BAD_COMPONENTS)[name]}, "\n".join(map(str, report.findings))


@pytest.mark.parametrize("name", GOOD)
def test_a_good_method_passes_every_check(name, site):
    """No false alarm: a finding is worth reading only if it is always right."""
    report = check_method(name)

    assert set(report.passed) | set(report.skipped) >= {
        "documented",
        "runs",
        "same_seed",
        "shuffled_labels",
        "clock",
        "save_load",
    }
    assert "shuffled_labels" in report.passed


def test_a_method_that_draws_nothing_may_give_the_same_for_every_seed(site):
    """A closed form has no seed; a private seed looks the same from outside, and is told from it by who seeds."""
    assert "draws nothing random" in examine_method("centroid").skipped["other_seed"]


def test_each_finding_names_the_method_the_breach_and_the_mend(site):
    """What an author reads in pytest's output must be enough to mend it."""
    with pytest.raises(
        NonConformant, match=r"state_restored: leaves_threads: .*the number of threads.*; put it back"
    ) as raised:
        check_method("leaves_threads")

    assert [f.check for f in raised.value.findings] == ["state_restored"]


def test_checks_can_be_chosen_by_name(site):
    """`@pytest.mark.parametrize("check", ...)` gives an author one test a check."""
    assert examine_method("leaves_threads", only=["same_seed"]).passed == ["same_seed"]
    with pytest.raises(HarnessError, match="no check 'same_sed' here; there are documented, runs"):
        examine_method("honest", only="same_sed")


# Tasks ------------------------------------------------------------------------------------------------------------------

TASKS_DECLARED = """
    import harness

    METRICS = (harness.Metric("accuracy", "1", "higher", worst=0.0),)
    ALL = TASK_NAMES

    class Undocumented(harness.Params):
        items: int = 200

    @harness.hookimpl
    def harness_tasks():
        shape = lambda params: {"inputs": 7 if SHAPE_WRONG else 6, "outputs": 6, "train_items": 240}
        made = []
        for name in ALL:
            def sizes(params, name=name):
                return {"inputs": 7 if name == "wrong_shape" else 6, "outputs": 6, "train_items": 240}
            made.append(harness.Task(name, "classify", METRICS, load=f"NAME_code:{name}", score=f"NAME_code:score_{name}",
                                     shape=sizes, summary="" if name == "no_summary" else "six clouds"))
        return made
""".replace('        shape = lambda params: {"inputs": 7 if SHAPE_WRONG else 6, "outputs": 6, "train_items": 240}\n', "")

TASKS_CODE = '''
    import os
    import torch
    from harness import Instance
    from harness.lab import Classify

    def clouds(generator, dtype, items=360):
        y = torch.arange(items) % 6
        x = 3 * torch.eye(6)[y] + torch.randn(items, 6, generator=generator)
        order = torch.randperm(items, generator=generator)
        return x[order].to(dtype), y[order]

    def parts(x, y):
        held = {"validation": {"x": x[240:300], "y": y[240:300], "classes": 6},
                "test": {"x": x[300:], "y": y[300:], "classes": 6}}
        return Instance(Classify(x[:240], y[:240], 6, (6,)), held)

    def clouds_task(problem_dtype=None):
        pass

    def good_task(params, ctx):
        return parts(*clouds(ctx.generator("split"), ctx.dtype))

    def score_good_task(part, solution, params, ctx):
        right = solution.predict(part["x"]).argmax(1) == part["y"]
        return {"accuracy": float(right.double().mean())}

    no_summary = good_task
    wrong_shape = good_task
    score_no_summary = score_wrong_shape = score_good_task

    def unseeded_task(params, ctx):
        return parts(*clouds(torch.Generator().manual_seed(int.from_bytes(os.urandom(4), "little")), ctx.dtype))

    def own_seed_task(params, ctx):
        return parts(*clouds(torch.Generator().manual_seed(7), ctx.dtype))

    def single_task(params, ctx):
        return parts(*clouds(ctx.generator("split"), torch.float32))

    def leaky_task(params, ctx):
        """The test items are in the training part too."""
        x, y = clouds(ctx.generator("split"), ctx.dtype)
        made = parts(x, y)
        return Instance(Classify(x[120:], y[120:], 6, (6,)), made.held)

    def no_instance(params, ctx):
        return clouds(ctx.generator("split"), ctx.dtype)

    def unsealed(params, ctx):
        made = good_task(params, ctx)
        return Instance(made.problem, {**made.held, "test": {**made.held["test"], "look": lambda: 1}})

    def dirty(params, ctx):
        x, y = clouds(ctx.generator("split"), ctx.dtype)
        x[3, 2] = float("nan")
        return parts(x, y)

    def noisy_score(params, ctx):
        return good_task(params, ctx)

    def below_worst(params, ctx):
        return good_task(params, ctx)

    def chdir_task(params, ctx):
        os.chdir("/")
        return good_task(params, ctx)

    def score_noisy_score(part, solution, params, ctx):
        made = score_good_task(part, solution, params, ctx)
        return {"accuracy": made["accuracy"] + 1e-3 * int.from_bytes(os.urandom(2), "little") / 65536}

    def score_below_worst(part, solution, params, ctx):
        made = score_good_task(part, solution, params, ctx)
        return {"accuracy": made["accuracy"] - 2}

    score_unseeded_task = score_own_seed_task = score_single_task = score_leaky_task = score_no_instance = score_good_task
    score_unsealed = score_dirty = score_chdir_task = score_good_task
'''

BAD_TASKS = {
    "no_summary": "documented",
    "wrong_shape": "load",
    "unseeded_task": "same_seed",
    "own_seed_task": "other_seed",
    "single_task": "dtype",
    "leaky_task": "parts",
    "no_instance": "load",
    "unsealed": "load",
    "dirty": "load",
    "noisy_score": "score",
    "below_worst": "score",
    "chdir_task": "state_restored",
}


@pytest.fixture(scope="module")
def task_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginSite]:
    with open_plugin_site(tmp_path_factory.mktemp("planted-tasks") / "site") as made:
        made.write("clouds", TASKS_DECLARED.replace("TASK_NAMES", repr([*BAD_TASKS, "good_task"])), TASKS_CODE)
        yield made


@pytest.mark.parametrize("name", BAD_TASKS)
def test_every_planted_task_is_caught_by_its_check_and_by_no_other(name, task_site):
    """A task that leaks or that scores by a draw makes every leaderboard on it worthless."""
    report = examine_task(name)

    assert caught(report) == {BAD_TASKS[name]}, "\n".join(map(str, report.findings))


def test_a_good_task_passes_every_check(task_site):
    """With the core's learner around relu as the method that solves it."""
    report = check_task("good_task")

    assert {"load", "runs", "same_seed", "other_seed", "dtype", "parts", "score", "shuffled_labels"} <= set(report.passed)


# Kernels ----------------------------------------------------------------------------------------------------------------

KERNELS_DECLARED = """
    import harness

    ALL = KERNEL_NAMES

    def flops(case, itemsize):
        return {"forward": 2 * case.elements, "backward": 3 * case.elements}

    def bytes_(case, itemsize):
        return {"forward": 2 * case.elements * itemsize, "backward": 3 * case.elements * itemsize}

    def constant(case, itemsize):
        return {"forward": 8, "backward": 12}

    @harness.hookimpl
    def harness_kernels():
        return [harness.Kernel(name, inputs="NAME_code:" + ("fixed" if name == "fixed_inputs" else "inputs"),
                               implementations=(harness.Implementation("ours", "ours", f"NAME_code:{name}"),),
                               reference="NAME_code:reference", flops=flops,
                               bytes=constant if name == "constant_bytes" else bytes_, summary="x sigmoid(x)") for name in ALL]
"""

KERNELS_CODE = """
    import torch

    def inputs(case, generator, device, dtype):
        return {"x": torch.randn(case.elements, generator=generator).to(device, dtype).requires_grad_()}

    def fixed(case, generator, device, dtype):
        own = torch.Generator().manual_seed(3)
        return {"x": torch.randn(case.elements, generator=own).to(device, dtype).requires_grad_()}

    def reference(given, case):
        x = given["x"].double()
        return x * x.sigmoid()

    def good_kernel(given, case):
        return torch.nn.functional.silu(given["x"])

    fixed_inputs = constant_bytes = good_kernel

    def wrong_gradient(given, case):
        x = given["x"]
        return x * x.sigmoid().detach()

    def rough(given, case):
        return good_kernel({"x": given["x"].bfloat16()}, case).to(given["x"].dtype)

    def writes_its_input(given, case):
        with torch.no_grad():
            given["x"].mul_(1.5)
        return good_kernel(given, case)

    def leaves_threads_kernel(given, case):
        torch.set_num_threads(3)
        return good_kernel(given, case)
"""

BAD_KERNELS = {
    "fixed_inputs": "other_seed",
    "constant_bytes": "work",
    "wrong_gradient": "kernel",
    "rough": "kernel",
    "writes_its_input": "inputs_kept",
    "leaves_threads_kernel": "state_restored",
}


@pytest.fixture(scope="module")
def kernel_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PluginSite]:
    with open_plugin_site(tmp_path_factory.mktemp("planted-kernels") / "site") as made:
        made.write("hotkernels", KERNELS_DECLARED.replace("KERNEL_NAMES", repr([*BAD_KERNELS, "good_kernel"])), KERNELS_CODE)
        yield made


@pytest.mark.parametrize("name", BAD_KERNELS)
def test_every_planted_kernel_is_caught_by_its_check_and_by_no_other(name, kernel_site):
    """The reference is float64 and the layouts are awkward, so that a kernel that is only nearly right is seen."""
    report = examine_kernel(name)

    assert caught(report) == {BAD_KERNELS[name]}, "\n".join(map(str, report.findings))


def test_a_good_kernel_passes_every_check(kernel_site):
    report = check_kernel("good_kernel")

    assert {"kernel", "work", "same_seed", "other_seed", "inputs_kept", "state_restored"} <= set(report.passed)


# Plugins ----------------------------------------------------------------------------------------------------------------

CLEAN = """
    import harness

    @harness.hookimpl
    def harness_papers():
        return [harness.Paper("NAME", "A title", "2405.00001", 2024, claims=(CLAIM,))]
"""
CLAIM = """harness.Claim("better", "better", RULE, 10, "not stated", "nowhere", "https://example.org")"""
RULE = """harness.Within(harness.Diff(
            harness.Cell("gelu", "digits", "accuracy"), harness.Cell("relu", "digits", "accuracy")), low=0)"""
BAD_PLUGINS = {
    "heavyplug": ("import_cheap", "import torch\n", RULE, "torch"),
    "writingplug": ("import_pure", "open(__file__ + '.log', 'w').close()\n", RULE, "writes"),
    "printingplug": ("import_pure", "print('hello')\n", RULE, "prints 'hello'"),
    "seedingplug": ("import_pure", "import random\nrandom.seed(3)\n", RULE, "Python's random state"),
    "threadplug": ("import_pure", "import threading, time\nthreading.Thread(target=time.sleep, args=(1,)).start()\n", RULE,
                   "the number of threads"),
    "shellplug": ("import_pure", "import subprocess\nsubprocess.run(['true'])\n", RULE, "starts"),
    "claimplug": ("claims", "", RULE.replace('"accuracy"', '"acuracy"'), "metric 'acuracy'"),
    "methodplug": ("claims", "", RULE.replace('"gelu"', '"gleu"'), "did you mean 'gelu'"),
    "settingplug": ("claims", "", RULE.replace('"accuracy"', '"accuracy", harness.given(method__slope=1)', 1), "method.slope"),
    "brokenplug": ("loads", "import nothing_of_this_name\n", RULE, "nothing_of_this_name"),
    "nonsenseplug": ("loads", "", "None", "it has no rule"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_PLUGINS)
def test_every_planted_plugin_is_caught_by_its_check_and_by_no_other(name, tmp_path):
    """What importing does is seen in a fresh process: here every other test has imported torch already."""
    check, top, rule, text = BAD_PLUGINS[name]
    with open_plugin_site(tmp_path / "site") as site:
        declared = CLEAN.replace("CLAIM", CLAIM.replace("RULE", rule))
        site.write(name, declared, "")
        file = site.folder / f"{name}.py"
        file.write_text(top + file.read_text())
        reports = list(examine_plugin(name))

    findings = [finding for report in reports for finding in report.findings]
    assert {finding.check for finding in findings} == {check}, findings
    assert text in str(findings[0])


def test_a_method_that_ends_the_process_costs_its_own_report_only(tmp_path):
    """`plugin check` is run on methods that crash; what comes after them is examined all the same."""
    code = CODE + "\n    def dies(problem, ctx, params):\n        os._exit(7)\n"
    declared = DECLARED.replace("LEARNER_NAMES", "['dies', 'honest']").replace("ACTIVATION_NAMES", "[]")
    with open_plugin_site(tmp_path / "site") as site:
        site.write("deadly", declared, code)
        reports = {report.about: report for report in examine_plugin("deadly", only=["dies", "honest"])}

    assert [str(f) for f in reports["dies"].findings] == [
        "runs: dies: examining this method ended the process with exit code 7; "
        "let nothing end or block the process that it runs in"
    ]
    assert not reports["honest"].findings
    assert "clock" in reports["honest"].passed


def test_a_method_that_hangs_costs_its_time_and_its_own_report_only(tmp_path):
    """Without a limit one sleeper would hold a CI job for hours."""
    code = CODE + "\n    def hangs(problem, ctx, params):\n        time.sleep(600)\n"
    declared = DECLARED.replace("LEARNER_NAMES", "['hangs']").replace("ACTIVATION_NAMES", "[]")
    with open_plugin_site(tmp_path / "site") as site:
        site.write("sleepy", declared, code)
        reports = {report.about: report for report in examine_plugin("sleepy", only=["hangs"], timeout_s=20)}

    assert "did not end within 20 s" in str(reports["hangs"].findings[0])


def test_a_plugin_that_is_not_installed_is_refused_with_what_there_is():
    with pytest.raises(HarnessError, match=r"no plugin 'crelu' is installed here; did you mean 'crrelu'\?"):
        list(examine_plugin("crelu"))


# The good ones ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["relu", "groupnorm-relu", "crrelu"])
def test_methods_of_the_core_and_of_papers_keep_the_contract(name):
    """All others are examined by `make test-slow`."""
    check_method(name)


@pytest.mark.parametrize("name", ["digits", "moons", "sines"])
def test_tasks_of_the_core_keep_the_contract(name):
    check_task(name)


@pytest.mark.parametrize("name", ["relu", "selu"])
def test_kernels_of_the_core_and_of_papers_keep_the_contract(name):
    check_kernel(name)


@pytest.mark.slow
@pytest.mark.parametrize("plugin", sorted(p.id for p in load_catalogue().plugins if p.dist.startswith("paper-harness")))
def test_every_plugin_shipped_here_keeps_the_contract(plugin):
    """The checks fail no good method, task or kernel: all that the core and the papers offer."""
    findings = [str(finding) for report in examine_plugin(plugin) for finding in report.findings]

    assert not findings


# Their tools ------------------------------------------------------------------------------------------------------------


def test_equal_objects_have_one_digest_and_a_bit_changes_it():
    """Tensors count by their bits, objects by what they hold; a cycle ends."""
    import torch

    class Held:
        def __init__(self, x):
            self.x, self.me = x, self

    x = torch.arange(5.0)
    assert digest_of(Held(x)) == digest_of(Held(x.clone()))
    assert digest_of(Held(x)) != digest_of(Held(x + 1e-7))
    assert digest_of(torch.tensor([0.0])) != digest_of(torch.tensor([-0.0]))
    assert digest_of([1]) != digest_of([1.0])


def test_what_a_check_changes_is_put_back(tmp_path, monkeypatch):
    """Checks run in pytest, beside tests of the author's own: they leave nothing behind."""
    import os

    import torch

    before = (torch.get_num_threads(), torch.get_default_dtype(), Path.cwd(), torch.get_rng_state().clone())
    with kept_state() as changed:
        torch.set_num_threads(before[0] + 1)
        torch.set_default_dtype(torch.float64)
        os.chdir(tmp_path)
        os.environ["HARNESS_LEFT_BEHIND"] = "1"
        torch.rand(3)
        seen = set(changed())

    assert {
        "the number of threads",
        "the default dtype",
        "the working folder",
        "the environment",
        "torch's random state",
    } <= seen
    assert (torch.get_num_threads(), torch.get_default_dtype(), Path.cwd()) == before[:3]
    assert torch.equal(torch.get_rng_state(), before[3])
    assert "HARNESS_LEFT_BEHIND" not in os.environ


def test_every_check_that_is_named_is_told_of():
    """Each report's checks stand in the table that `harness plugin check --list` prints, and in the manual."""
    from harness.testing.kernels import KERNEL_CHECKS
    from harness.testing.methods import METHOD_CHECKS
    from harness.testing.plugins import PLUGIN_CHECKS
    from harness.testing.tasks import TASK_CHECKS

    page = (Path(__file__).parent.parent / "docs" / "plugins.md").read_text()
    assert all(f"| `{check}` | {asks} |" in page for check, asks in CHECKS.items())
    assert {*METHOD_CHECKS, *TASK_CHECKS, *KERNEL_CHECKS, *PLUGIN_CHECKS, "claims", "commands", "suites"} == set(CHECKS)
