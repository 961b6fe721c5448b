"""The largest resident memory of a process that a test starts."""

from __future__ import annotations

import sys

import pytest

PEAK_KB = """
def peak_kb():
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("VmHWM")).split()[1])
"""
"""For the process's code, on Linux. `ru_maxrss` may be that of its parent: it is inherited."""

measures_memory = pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
