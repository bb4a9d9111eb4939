"""Mistakes that a user can mend, and the results that a trial may end with instead of a number.

`HarnessError` and its children stop a command with one message and an exit code. `Invalid`, `Unsupported` and `Diverged`
are raised by plugins (and by `harness.lab`); they end a trial with that status and stop nothing else.
"""

from __future__ import annotations


class HarnessError(Exception):
    """Something that the user can mend. Its text says what, where and the mend; `exit_code` is what the command ends with."""

    exit_code = 2


class SuiteError(HarnessError):
    """Mistakes in a suite file, all of them: one `file:line: path: what; the mend` a line."""


class PluginError(HarnessError):
    """A plugin that cannot be loaded or that declares nonsense."""


class RegistryError(HarnessError):
    """A registry that cannot be written, or a file in it that is damaged."""


class DamagedError(RegistryError):
    """A registry file whose content is not what its name promises."""

    exit_code = 3


class NothingSelected(HarnessError):
    """The filters left no trial."""

    exit_code = 4


class MissingError(HarnessError):
    """Something needed is not on this machine: data, a device, a library."""

    exit_code = 5


class DataError(MissingError):
    """A data set that is absent, or whose digest is not the declared one."""


class Invalid(Exception):
    """Raised by a task's `score`: the solution is proved wrong (an unsound certificate, say). Status `invalid`."""


class Unsupported(Exception):
    """Raised by `load`, `solve` or `score`: cannot be done here (a 2-d norm in an MLP, say). Status `unsupported`."""


class Diverged(Exception):
    """Raised by a learner whose numbers are no longer finite. Status `diverged`; it counts as each metric's `worst`."""


class BudgetSpent(BaseException):
    """Raised by `ctx.spend` when the next piece of work would exceed the budget; the last offer is then the result.

    A BaseException, so that a method's `except Exception` cannot swallow the end of its budget.
    """
