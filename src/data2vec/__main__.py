"""``python -m data2vec`` and ``torchrun -m data2vec``: the command line."""

from data2vec.cli.main import main

if __name__ == "__main__":
    raise SystemExit(main())
