"""One trial in one process: load, seal, solve, score or time; whatever happens becomes an `Outcome`.

    trial (the process and its verdict) -> staging (the stages) -> scoring, measuring; sealing keeps the held parts shut,
    deriving shares what is costly; environment, processes and resolving are what they stand on.

Importing this costs no torch; running a trial does.
"""

from harness.worker.trial import WorkerOptions, run_trial, trial_from_json

__all__ = ["WorkerOptions", "run_trial", "trial_from_json"]
