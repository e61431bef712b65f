"""`snapjax demo`, from a checkout: python scripts/demo.py --help."""

import sys

from zoo.cli.demo_command import main

if __name__ == "__main__":
    sys.exit(main())
