"""Cures of bugs in third parties: one file each, which names the version that it is for.

``tests/unit/stacks/test_compat.py`` fails when a cure is no longer needed.
"""
