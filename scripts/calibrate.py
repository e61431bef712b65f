"""`snapjax calibrate`, from a checkout: python scripts/calibrate.py --help."""

import sys

from zoo.cli.calibrate import main

if __name__ == "__main__":
    sys.exit(main())
