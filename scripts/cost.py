"""`snapjax cost`, from a checkout: python scripts/cost.py --help."""

import sys

from zoo.cli.cost import main

if __name__ == "__main__":
    sys.exit(main())
