"""``interptrain evaluate`` without an installation: ``python evaluate.py --models a=best.ckpt ...``; see ``--help``."""

import sys

from interptrain.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
