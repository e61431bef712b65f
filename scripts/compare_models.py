"""`snapjax compare models`, from a checkout: python scripts/compare_models.py --help."""

import sys

from zoo.cli.compare_models import main

if __name__ == "__main__":
    sys.exit(main())
