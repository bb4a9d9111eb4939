"""asv's benchmarks: kernels of the installed plugins, and what the harness itself costs. `docs/asv.md` says how they run."""
