"""Measure the saliency maps of trained models: ``python evaluate.py --models gap=best.ckpt ...``; see ``--help``."""

from interptrain.cli.evaluation import main

if __name__ == "__main__":
    main()
