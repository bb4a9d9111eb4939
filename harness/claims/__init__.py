"""Claims: a rule and records in, a verdict out.

    find_protocols(suite, plan, catalogue), fix(protocols, registry, suite)     before the trials: what will be judged
    judge_claims(registry, catalogue, names) -> list[Verdict]                   afterwards: what it came to

fixing (protocols as facts) -> evidence (attempts that count) -> numbers (one a seed) -> deciding (a word of a rule) -> judging
(a verdict: what lacks, why, the command). `verdicts` has what they say. docs/claims.md is for readers of verdicts.
"""
