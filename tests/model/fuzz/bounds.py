"""What one input may take: processor time, and memory that the process did not have before."""

from __future__ import annotations

import resource
import time

CPU_SECONDS = 2.0  # a thousand times what most take; of processor time, as others may use the machine as well
GROWTH_KIB = 64 * 1024


class TooMuchError(AssertionError):
    """An input took more than it may."""


def _peak_kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def bounded(try_input):
    """Return a function that tries an input, and raises if it took too much."""

    def try_bounded(data):
        peak_before_kib, began = _peak_kib(), time.process_time()
        try_input(data)
        seconds, growth_kib = time.process_time() - began, _peak_kib() - peak_before_kib
        if seconds > CPU_SECONDS:
            raise TooMuchError(f"{len(data)} bytes took {seconds:.1f} s of the processor")
        if growth_kib > GROWTH_KIB:
            raise TooMuchError(f"{len(data)} bytes took {growth_kib // 1024} MiB of memory")

    return try_bounded
