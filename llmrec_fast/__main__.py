"""`python -m llmrec_fast` is the command line, for where the script is not on the path."""

import sys

from llmrec_fast.cli import main

sys.exit(main())
