"""One verb each: a thin ZenML step over a function of the library."""
