"""`python -m memplan`, the same as the command `memplan`."""

import sys

if __name__ == "__main__":
    if not sys.flags.safe_path:
        del sys.path[0]  # the current folder, which holds the user's files and no code of ours
    from memplan.cli.main import main

    sys.exit(main())
