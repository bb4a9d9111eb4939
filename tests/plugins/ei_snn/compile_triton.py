"""Run by test_fused.py: the Triton kernels compiled for a Hopper GPU, which needs none; that they load 16 bytes at a time."""

from __future__ import annotations

import triton
from harness_papers.ei_snn import triton_kernels as kernels
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

FORWARD = {"KEEP": True, "HARD": False, "BLOCK": kernels.BLOCK}
BACKWARD = {"HARD": True, "DETACH": False, "NEEDS_U": True, "KIND": 0, "BLOCK": kernels.BLOCK}


def main() -> None:
    for dtype in ("fp32", "bf16"):
        for name, constants in (("forward_kernel", FORWARD), ("backward_kernel", BACKWARD)):
            made = compile_kernel(name, constants, dtype)
            loads = "v4.b32" if dtype == "fp32" else "v2.b32"  # 4 neurons a thread
            assert f"ld.global.{loads}" in made.asm["ptx"], (name, dtype)
            print(f"{name} {dtype}: compiled")


def compile_kernel(name: str, constants: dict[str, object], dtype: str) -> object:
    """Sizes and addresses are multiples of 16, as they are where it matters."""
    kernel = getattr(kernels, name)
    names = kernel.arg_names
    types = {"kept_ptr": "*fp32"} | dict.fromkeys(("leak", "theta", "alpha"), "fp32") | dict.fromkeys(constants, "constexpr")
    signature = {a: types.get(a, f"*{dtype}" if a.endswith("_ptr") else "i32") for a in names}
    even = [a for a in names if a.endswith("_ptr") or a in ("count", "i_step", "g_step")]
    source = ASTSource(kernel, signature, constants, {(names.index(a),): [["tt.divisibility", 16]] for a in even})
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": kernels.WARPS})


if __name__ == "__main__":
    main()
