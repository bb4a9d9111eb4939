"""Correct before fast: every planted cheat is caught, and by the check that its docstring leads one to expect."""

from __future__ import annotations

from collections.abc import Callable

import kernel_cheats as cheats
import pytest
import torch
from torch import Tensor

from harness.errors import HarnessError
from harness.kernels.checking import (
    Checked,
    Expected,
    Operands,
    Run,
    WrongResult,
    check_implementation,
    compare,
    draw_operands,
    scales_of,
)
from harness.kernels.layouts import lay_out, storage_bytes
from harness.specs import KernelCase


def check(
    run: Run, rng: torch.Generator, elements: int = 10_000, layout: str = "contiguous", dtype: torch.dtype = torch.float32,
    device: torch.device = cheats.CPU, **changes,
) -> Checked:  # fmt: skip
    kernel, _ = cheats.kernel(**changes)
    case = KernelCase(elements=elements, layout=layout)
    return check_implementation(kernel, run, case, dtype, draw_operands(kernel, case, rng, device, dtype))


# The honest -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [cheats.honest, lambda: cheats.formula])
@pytest.mark.parametrize("layout", ["contiguous", "strided", "unaligned"])
@pytest.mark.parametrize("elements", [0, 1, 2, 1001, 10_000])
def test_an_honest_implementation_passes_at_every_size_and_layout(make, elements, layout, rng):
    """Also with nothing in its inputs, and where a single element makes its reference small."""
    checked = check(make(), rng, elements, layout)

    assert 0 <= checked.errors.forward < 1e-6
    assert checked.errors.backward is not None
    assert checked.errors.backward < 3e-6


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_each_dtype_has_its_own_tolerance(dtype, rng):
    """bfloat16 rounds at 4e-3, float64 at 1e-16: one tolerance for both would forgive all or nothing."""
    checked = check(cheats.formula, rng, dtype=dtype)

    assert checked.errors.forward <= {torch.float64: 1e-15}.get(dtype, 1e-2)
    assert checked.errors.forward >= {torch.float64: 0.0}.get(dtype, 1e-4)


def test_a_single_element_fails_nobody_by_chance():
    """A sum that nearly cancels has no digits; the scale is taken over several draws. None of sixty fails."""
    for seed in range(60):
        check(cheats.honest(), torch.Generator().manual_seed(seed), elements=1)


def test_a_gradient_that_is_zero_but_for_rounding_fails_nobody(rng):
    """x / |x| of one element has no gradient; what float32 leaves of it is noise, compared with what such gradients measure."""
    sets = [Operands({"x": torch.tensor([v], requires_grad=True)}, (torch.tensor([1.0]),)) for v in (0.7, -1.3)]
    expected = [Expected((torch.tensor([1.0]),), {"x": torch.tensor([1e-9])})] * 2

    assert scales_of(("x",), sets, expected).gradients["x"] == pytest.approx(1 / 1.3)
    assert scales_of((), sets, expected).gradients["x"] == pytest.approx(1e-9)  # a parameter: no such allowance


def test_a_kernel_without_backward_is_checked_forward_only(rng):
    """Nothing is asked of autograd then."""
    assert check(cheats.detaches(), rng, backward=False).errors.backward is None


# The cheats -----------------------------------------------------------------------------------------------------------

CAUGHT: list[tuple[str, Callable[[], Run], str]] = [
    ("kept by identity", cheats.kept_by(id), "value_forward"),
    ("kept by address", cheats.kept_by(lambda x: x.data_ptr()), "value_forward"),
    ("kept by identity, address and version", cheats.kept_by(lambda x: (id(x), x.data_ptr(), x._version)), "value_forward"),
    ("kept by shape", cheats.kept_by(lambda x: x.shape), "value_forward"),
    ("writes nothing", cheats.writes_nothing, "written"),
    ("first half only", cheats.first_half_only, "written"),
    ("returns early", cheats.returns_early, "done_at_return"),
    ("changes its input", cheats.changes_its_input, "inputs_kept"),
    ("view of its input", cheats.view_of_its_input, "own_memory"),
    ("same buffer again", cheats.same_buffer_again, "own_memory"),
    ("right for five calls", lambda: cheats.right_at_first(5), "value_forward"),
    ("wrong backward", cheats.wrong_backward, "value_backward"),
    ("wrong for one parameter", cheats.wrong_for_one_parameter, "value_backward"),
    ("no gradient for one parameter", cheats.no_gradient_for_one_parameter, "gradient"),
    ("detaches", cheats.detaches, "gradient"),
    ("wrong dtype", cheats.wrong_dtype, "dtype"),
    ("wrong shape", cheats.wrong_shape, "shape"),
    ("half precision inside", cheats.half_inside, "value_forward"),
    ("infinite where it is large", cheats.infinite_where_it_is_large, "finite"),
    ("two outputs", lambda: lambda inputs, case: (cheats.formula(inputs, case),) * 2, "count"),
    ("no tensor", lambda: lambda inputs, case: 1.0, "type"),
]


@pytest.mark.parametrize(("make", "name"), [pytest.param(make, name, id=of) for of, make, name in CAUGHT])
def test_a_cheat_is_caught_by_its_check(make, name, rng):
    """The name of the check is in the error, which is what the record of the failed trial says."""
    with pytest.raises(WrongResult, match=f"wrong result, caught by {name}: ") as caught:
        check(make(), rng)

    assert caught.value.check == name


def test_memory_that_torch_does_not_fill_is_poisoned_too(rng):
    """C code gets its memory as the allocator hands it out: blocks of that size were filled with NaN and freed before.

    malloc may still choose another place, where the garbage is then a wrong value: caught, but not as what it is.
    """
    names = []
    for elements in (500, 2000, 5000, 10_000, 20_000):
        with pytest.raises(WrongResult) as caught:
            check(cheats.writes_nothing_into_freed_memory(), rng, elements)
        names.append(caught.value.check)

    assert names.count("written") >= 3


@pytest.mark.parametrize(
    ("make", "name"), [(cheats.ignores_strides, "written"), (cheats.writes_between_the_elements, "inputs_kept")]
)
def test_what_a_strided_input_does_not_show_is_watched(make, name, rng):
    """Between its elements lies NaN, which must be neither read nor written."""
    with pytest.raises(WrongResult) as caught:
        check(make(), rng, layout="strided")

    assert caught.value.check == name


@pytest.mark.cuda
@pytest.mark.parametrize("make", [cheats.other_stream, cheats.other_stream_that_waits_first])
@pytest.mark.parametrize("elements", [10_000, 1 << 24])
def test_work_on_another_stream_is_caught_on_cuda(make, elements, rng):
    """The result is read on the caller's stream, which was busy and then made the inputs right."""
    with pytest.raises(WrongResult) as caught:
        check(make(), rng, elements, device=torch.device("cuda"))

    assert caught.value.check in ("done_at_return", "written", "value_forward")


# The parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 4), (2, 0)])
@pytest.mark.parametrize(("layout", "step", "offset"), [("contiguous", 1, 0), ("strided", 2, 0), ("unaligned", 1, 1)])
def test_layouts_hold_the_same_values_in_another_place(shape, layout, step, offset, rng):
    """New leaves, with requires_grad as before, of the declared layout where there is anything to lay out."""
    x = torch.randn(shape, generator=rng).requires_grad_()

    laid = lay_out({"x": x, "a": x}, ("x",), layout)

    assert torch.equal(laid["x"], x)
    assert laid["x"].is_leaf
    assert laid["x"].requires_grad
    assert laid["a"].is_contiguous()
    assert laid["x"].storage_offset() == offset
    if x.numel() > 1:
        assert laid["x"].stride()[-1] == step
    if x.numel() and layout == "unaligned":
        assert laid["x"].data_ptr() % 16 != 0


def test_the_checked_sets_still_hold_random_inputs(rng):
    """They are timed next: the exchange of contents must not leave one set twice."""
    kernel, _ = cheats.kernel()
    case = KernelCase(elements=100)
    sets = draw_operands(kernel, case, rng, cheats.CPU, torch.float32)
    before = [s.inputs["x"].detach().clone() for s in sets]
    versions = [s.inputs["x"]._version for s in sets]

    check_implementation(kernel, cheats.formula, case, torch.float32, sets)

    assert torch.equal(sets[0].inputs["x"], before[1])
    assert torch.equal(sets[1].inputs["x"], before[0])
    assert [s.inputs["x"]._version for s in sets] == versions  # so autograd cannot tell, nor can the implementation


def test_nan_and_infinity_must_stand_where_the_reference_has_them():
    """And where it overflows the dtype, infinity is right."""
    want = torch.tensor([1.0, torch.nan, 1e300, -torch.inf], dtype=torch.float64)

    assert compare("c", "o", torch.tensor([1.0, torch.nan, torch.inf, -torch.inf]), want, 1.0, 1e-6) == 0
    with pytest.raises(WrongResult, match="finite"):
        compare("c", "o", torch.tensor([1.0, 0.0, torch.inf, -torch.inf]), want, 1.0, 1e-6)
    with pytest.raises(WrongResult, match="finite"):
        compare("c", "o", torch.tensor([1.0, torch.nan, 3e38, -torch.inf]), want, 1.0, 1e-6)


def test_a_dtype_without_tolerance_is_refused_with_those_that_have_one(rng):
    """The declaration is to be mended, not the number forgiven."""
    with pytest.raises(HarnessError, match=r"no tolerance for float16; it has \['float32'\]"):
        check(cheats.formula, rng, dtype=torch.float16, tolerance={"float32": 1e-5})


def test_a_kernel_that_gives_no_leaf_to_differentiate_is_refused(rng):
    """With backward declared there must be something to differentiate."""
    kernel, _ = cheats.kernel()
    plain = {"x": torch.zeros(3)}

    def without_leaves(*_: object) -> dict[str, Tensor]:
        return plain

    broken = type(kernel)(kernel.spec, kernel.ref, without_leaves, kernel.reference)
    with pytest.raises(HarnessError, match="requires_grad"):
        draw_operands(broken, KernelCase(elements=3), rng, cheats.CPU, torch.float32)


def test_the_bytes_of_a_storage_hold_what_a_view_does_not_show():
    """A view of them, so that what is written there is in the tensor."""
    x = torch.zeros(4)[::2]

    storage_bytes(x).fill_(0xFF)

    assert x.isnan().all()
    assert len(storage_bytes(x)) == 16
