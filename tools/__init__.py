"""The workshop: what installs, checks and generates; nothing here runs in a pipeline."""
