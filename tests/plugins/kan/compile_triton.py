"""Run by test_fused.py: the Triton kernels compiled for a Hopper GPU, which needs none; that tensor cores multiply."""

from __future__ import annotations

import triton
from harness_papers.kan import triton_kernels as kernels
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

HOPPER_BYTES = 232_448  # of shared memory for a block
TILES = {
    "_forward": {"ROWS": kernels.ROWS, "OUTPUTS": kernels.OUTPUTS, "FEATURES": kernels.FEATURES},
    "_inputs": {"ROWS": kernels.ROWS, "OUTPUTS": kernels.OUTPUTS, "FEATURES": kernels.FEATURES},
    "_weights": {"FEATURES": kernels.ROWS, "OUTPUTS": kernels.OUTPUTS, "ROWS": kernels.FEATURES},
}


def main() -> None:
    for dtype in ("fp32", "bf16"):
        for name, tile in TILES.items():
            made = compile_kernel(name, {"ORDER": 3, **tile}, dtype)
            assert made.metadata.shared <= HOPPER_BYTES, (name, dtype, made.metadata.shared)
            assert "wgmma.mma_async" in made.asm["ptx"], (name, dtype)
            print(f"{name} {dtype}: compiled")


def compile_kernel(name: str, constants: dict[str, int], dtype: str) -> object:
    """Sizes and addresses are multiples of 16, as they are where it matters."""
    kernel = getattr(kernels, name)
    names = kernel.arg_names
    types = {"sums_ptr": "*fp32", "low": "fp32", "per_step": "fp32"} | dict.fromkeys(constants, "constexpr")
    signature = {a: types.get(a, f"*{dtype}" if a.endswith("_ptr") else "i32") for a in names}
    even = [a for a in names if a.endswith("_ptr") or a in ("rows", "features", "outputs")]
    source = ASTSource(kernel, signature, constants, {(names.index(a),): [["tt.divisibility", 16]] for a in even})
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": kernels.WARPS})


if __name__ == "__main__":
    main()
