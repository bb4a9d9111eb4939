"""The papers: one folder each. What a third party writes looks the same, in a repository of its own."""
