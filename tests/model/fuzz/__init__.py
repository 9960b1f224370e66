"""Fuzzers: each tries inputs of every kind on one part of Connector, and holds what comes of it against a reference.

    make fuzz TARGET=packets SECONDS=3600

A target is a module with `prepare()`, which returns what takes one input (bytes) and raises if something is wrong. Its
corpus is the folder of its name in `corpus`: small inputs, which are always tried first, alone or before the others are
made of them. Atheris (libFuzzer) makes these: it follows which lines and comparisons an input reaches, and keeps what
reaches new ones. Python versions and systems without it try the corpus alone.

`run` starts one process for a target and says what came of it; `child` is that process; `bounds` is what one input may
take. An input that fails is written into the corpus, with the command that repeats it.
"""
