"""Where pipelines run: stack files and what applies and checks them. Knows no pipeline."""
