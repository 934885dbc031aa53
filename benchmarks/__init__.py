"""Every speed and memory claim, paired with its baseline."""
