"""`python -m umbel`: the command line without its script."""

import sys

from _umbel_command import main

sys.exit(main())
