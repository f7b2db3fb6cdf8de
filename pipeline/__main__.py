"""`python -m pipeline`: the command line."""

import sys

try:
    from pipeline.cli import main
except ModuleNotFoundError as error:
    sys.exit(
        f"Error: {sys.executable} has no package {error.name!r}; run `make setup` and then"
        " `source .venv/bin/activate`"
    )

if __name__ == "__main__":
    main()
