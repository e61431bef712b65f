"""`snapjax convert`, from a checkout: python scripts/convert.py --help."""

import sys

from zoo.cli.convert import main

if __name__ == "__main__":
    sys.exit(main())
