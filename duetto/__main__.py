"""``python -m duetto``: the command line."""

import sys

from duetto.cli import main

if __name__ == "__main__":
    sys.exit(main())
