"""Distributed training: several processes on one or more machines."""
