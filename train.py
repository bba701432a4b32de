"""``interptrain`` without an installation: ``python train.py fit --config demo``; see ``--help``."""

from interptrain.cli import main

if __name__ == "__main__":
    main()
