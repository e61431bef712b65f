"""`snapjax inspect`, from a checkout: python scripts/inspect_weights.py --help."""

import sys

from zoo.cli.inspect import main

if __name__ == "__main__":
    sys.exit(main())
