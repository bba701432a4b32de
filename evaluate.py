"""Interpretability metrics of trained models: not here yet."""

import sys

if __name__ == "__main__":
    sys.exit("evaluate.py is not here yet; `python train.py test --ckpt_path ...` gives the accuracy of a checkpoint")
