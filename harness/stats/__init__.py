"""Statistics as pure functions: intervals, tests and power for verdicts; aggregates and their bootstrap for pooled tasks.

Importing this imports neither numpy nor scipy: a function that needs one imports it when called. scipy.special does for all of
them; scipy.stats, which costs a second, is not used.
"""

from harness.stats.intervals import (
    Interval,
    binomial_interval,
    correlation_interval,
    iqm_interval,
    median_interval,
    paired_interval,
    safe_mean,
    t_interval,
    t_quantile,
    welch_interval,
)
from harness.stats.pooled import (
    beats,
    bootstrap_distribution,
    iqm,
    mean_ranks,
    optimality_gap,
    performance_profile,
    probability_of_improvement,
    profile_band,
    rank_ranges,
    stratified_bootstrap_interval,
)
from harness.stats.power import (
    detectable_effect,
    power_of_paired_t,
    power_of_share,
    seeds_needed,
    seeds_needed_for_share,
)
from harness.stats.signed_rank import signed_rank_interval, signed_rank_p
from harness.stats.significance import FEWEST_PAIRS, Alternative, effect_size, holm, looks, paired_t_p, sign_flip_p

__all__ = [
    "Interval", "t_interval", "paired_interval", "welch_interval", "median_interval", "iqm_interval", "binomial_interval",
    "correlation_interval", "t_quantile", "safe_mean",
    "Alternative", "FEWEST_PAIRS", "sign_flip_p", "paired_t_p", "signed_rank_p", "signed_rank_interval", "effect_size", "holm",
    "looks",
    "power_of_paired_t", "seeds_needed", "detectable_effect", "power_of_share", "seeds_needed_for_share",
    "iqm", "optimality_gap", "performance_profile", "probability_of_improvement", "stratified_bootstrap_interval",
    "bootstrap_distribution", "profile_band", "mean_ranks", "beats", "rank_ranges",
]  # fmt: skip
