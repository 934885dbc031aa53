"""How often a process looks for garbage in reference cycles."""

import atexit
import gc


def collect_rarely() -> None:
    """Make collections rare, before imports: those of ZenML and MLflow make a million objects.

    They stay, and looking through them again and again takes a quarter of a short command's time.
    A long one still looks through all of them, at every twenty million. Destroying them one by one
    when the interpreter ends takes longer still: they stay then, too.
    """
    gc.set_threshold(100_000, 20, 10)
    # Registered before the handlers of libraries, so that it runs after them.
    atexit.register(gc.freeze)
