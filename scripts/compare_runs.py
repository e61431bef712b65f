"""`snapjax compare runs`, from a checkout: python scripts/compare_runs.py --help."""

import sys

from zoo.cli.compare_runs import main

if __name__ == "__main__":
    sys.exit(main())
