"""`harness plugin new`: a package with a working small method, its claim, its tests, a suite, a CI workflow and a README."""

from harness.scaffold.making import KINDS, check_name, make_package, module_name

__all__ = ["KINDS", "check_name", "make_package", "module_name"]
