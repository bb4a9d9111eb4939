"""Kernels: one hot operation in many implementations, checked against a float64 reference and timed beside its ceilings."""
