"""groklab: a laboratory for grokking."""
