"""`snapjax plot`, from a checkout: python scripts/plot_run.py --help."""

import sys

from zoo.cli.plot import main

if __name__ == "__main__":
    sys.exit(main())
