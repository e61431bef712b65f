"""`snapjax train`, from a checkout: python scripts/train.py --help."""

import sys

from zoo.cli.train import main

if __name__ == "__main__":
    sys.exit(main())
