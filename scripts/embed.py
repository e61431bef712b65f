"""`snapjax embed`, from a checkout: python scripts/embed.py --help."""

import sys

from zoo.cli.embed import main

if __name__ == "__main__":
    sys.exit(main())
