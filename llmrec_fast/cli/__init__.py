"""The command line, `llmrec-fast`: parses arguments, calls the package, prints tables for people or JSON for programs.

Results go to standard output, progress and errors to standard error. Exit status: 0 done, 2 refused (the message says why).
"""

from llmrec_fast.cli.main import main

__all__ = ["main"]
