"""`snapjax distill`, from a checkout: python scripts/distill.py --help."""

import sys

from zoo.cli.distill import main

if __name__ == "__main__":
    sys.exit(main())
