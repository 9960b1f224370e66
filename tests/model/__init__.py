"""Tests that draw their inputs: models of what must hold, simulated time, fuzzers; no server is started."""
