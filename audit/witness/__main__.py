"""`python -m audit.witness`: needs Python 3.11, the folder `audit/` and the package `cryptography`."""

import sys

from audit.witness.command import main

if __name__ == "__main__":
    sys.exit(main())
