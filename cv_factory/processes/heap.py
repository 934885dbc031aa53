"""Heap of the C library, from which threads allocate."""

import ctypes

_M_ARENA_MAX = -8  # glibc's malloc.h


def use_one_heap() -> None:
    """Let the threads that start from now on allocate from the main thread's heap.

    By default glibc gives each of them an arena of its own. Where one thread allocates batches of
    images and another frees them, these arenas fragment, and memory grows with the number of
    batches. Nothing changes with other C libraries, nor once more than eight arenas are in use.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
