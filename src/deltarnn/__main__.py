"""`python -m deltarnn COMMAND`, where the script `deltarnn` is not on the path."""

import sys

from deltarnn.cli import main

sys.exit(main())
