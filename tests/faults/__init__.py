"""Tests of the worker while something fails: brokers, network, disk, memory, the process itself."""
