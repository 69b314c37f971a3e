"""`python -m controller` is the command `controller`."""

import sys

from controller.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
