"""Exporting: the registry in the formats of others. Each module reads a `Registry` and writes files; none changes a record."""
