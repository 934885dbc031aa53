"""Child processes: starting, finding, stopping and watching them."""
