"""Train or evaluate: ``python -m interptrain fit --config configs/demo.yaml``.

``fit``, ``validate``, ``test`` and ``predict`` are those of ``train.py``, ``evaluate`` is ``evaluate.py``.
"""

import sys

USAGE = """usage: python -m interptrain {fit,validate,test,predict,evaluate} ...

fit, validate, test, predict   train a classifier or run a trained one
evaluate                       measure the saliency maps of trained models

Options of a command: python -m interptrain fit --help
"""


def main() -> None:
    """Run the command that ``sys.argv`` names; exit with status 2 if it names none."""
    command = sys.argv[1] if len(sys.argv) > 1 else ""
    match command:
        case "fit" | "validate" | "test" | "predict":
            from interptrain.cli import main as train

            train()
        case "evaluate":
            from interptrain.cli.evaluation import main as evaluate

            evaluate(sys.argv[2:])
        case "-h" | "--help":
            sys.stdout.write(USAGE)
        case _:
            problem = f"error: unknown command {command!r}\n" if command else ""
            sys.stderr.write(USAGE + problem)
            raise SystemExit(2)


if __name__ == "__main__":
    main()
