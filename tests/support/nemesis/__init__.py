"""Faults by chance for a while, then one verdict: `make nemesis`."""
