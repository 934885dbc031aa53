"""The door: ``python run.py --pipeline NAME`` and the subcommands of ``cli``."""

import sys

from cli.main import main

if __name__ == "__main__":
    sys.exit(main())
