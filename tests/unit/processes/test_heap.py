"""Threads allocate from one heap where they are told to (glibc)."""

import ctypes
import subprocess
import sys

import pytest

from tests.support.paths import ROOT

SCRIPT = """
import ctypes, threading
from cv_factory.processes.heap import use_one_heap
{call}
thread = threading.Thread(target=lambda: [bytearray(50_000) for _ in range(10)])
thread.start()
thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
stdout = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, stdout)
libc.fflush(stdout)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="needs glibc")
@pytest.mark.parametrize(("call", "heaps"), [("", 2), ("use_one_heap()", 1)])
def test_threads_share_a_heap(call: str, heaps: int) -> None:
    command = [sys.executable, "-c", SCRIPT.format(call=call)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.count("<heap nr=") == heaps
