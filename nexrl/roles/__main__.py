"""`python -m nexrl.roles ROLE --run-dir DIR`."""

import sys

from nexrl.roles.main import main

sys.exit(main())
