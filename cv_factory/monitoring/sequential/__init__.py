"""Sequential tests: evidence that is valid at any number of looks.

An e-process is a sequence of non-negative numbers whose value is at least ``1 / alpha`` at any time
with a probability of at most ``alpha`` while its null hypothesis holds (Ville's inequality): one
may look after each observation, and stop or go on for any reason.
"""
