"""How often a process looks for garbage in reference cycles."""

import gc


def collect_rarely() -> None:
    """Make collections rare, before imports: those of ZenML and MLflow make a million objects.

    They stay, and looking through them again and again takes a quarter of a short command's time.
    A long one still looks through all of them, at every twenty million.
    """
    gc.set_threshold(100_000, 20, 10)
