"""`snapjax mine`, from a checkout: python scripts/mine_pairs.py --help."""

import sys

from zoo.cli.mine import main

if __name__ == "__main__":
    sys.exit(main())
