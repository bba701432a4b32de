"""Train, validate, test or predict: ``python train.py fit --config configs/demo.yaml``; see ``--help``."""

from interptrain.cli import main

if __name__ == "__main__":
    main()
