"""`python -m umbel`: the command line without its script."""

import sys

from umbel.cli import main

sys.exit(main())
