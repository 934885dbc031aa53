"""Services on this machine: started, proven, given traffic, replaced and stopped as a whole."""
