"""Stack files, and the code that applies and checks them. Knows no pipeline."""
