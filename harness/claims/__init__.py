"""Claims: a rule and records in, a verdict out."""
