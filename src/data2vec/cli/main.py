"""The ``data2vec`` command: picks the command's module, and turns errors into exit codes."""

from __future__ import annotations

import importlib
import os
import select
import sys
from collections.abc import Sequence

_COMMANDS = {  # name -> (module with `main(argv)` that returns an exit status or None, one line of help)
    "pretrain": ("data2vec.cli.pretrain", "pre-train on a folder of recordings, images or text"),
    "convert": ("data2vec.cli.convert", "checkpoints from and to fairseq, the BEiT fork and transformers"),
    "probe": ("data2vec.cli.probe", "k-NN and linear probe of a model's frozen features"),
    "finetune": ("data2vec.cli.finetune", "fine-tune a model for a task on labelled files"),
    "evaluate": ("data2vec.cli.evaluate", "judge a fine-tuned model on labelled files"),
    "embed": ("data2vec.cli.embed", "features of files or texts, into a safetensors file"),
    "predict": ("data2vec.cli.predict", "what a fine-tuned model says about files or texts"),
    "verify": ("data2vec.cli.verify", "check the known numbers of published checkpoints"),
    "demo": ("data2vec.cli.demo", "pre-train on embedded data in all three modalities, and report"),
}

DONE, OUR_BUG, USER_ERROR, INTERRUPTED, UNREAD = 0, 1, 2, 130, 141


def _help() -> str:
    import data2vec

    width = max(map(len, _COMMANDS))
    commands = "\n".join(f"  {name:<{width}}  {line}" for name, (_, line) in _COMMANDS.items())
    return (
        f"data2vec {data2vec.__version__}: self-supervised learning for speech, vision and language\n\n"
        f"usage: data2vec COMMAND ...\n\ncommands:\n{commands}\n\n"
        "`data2vec COMMAND --help` explains one command; `data2vec --version` prints the version."
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: arguments after the program's name; the process's own by default.

    Returns:
        The exit status: 0 done, 2 something the user can mend (one line on stderr), 130 interrupted, 141
        when nobody reads the output (``| head``); or the command's.
        A bug of ours leaves as its traceback, which Python turns into status 1.
    """
    from data2vec.errors import UserError

    arguments = list(sys.argv[1:] if argv is None else argv)
    match arguments[:1]:
        case [] | ["-h" | "--help" | "help"]:
            print(_help())
            return DONE
        case ["--version"]:
            import data2vec

            print(data2vec.__version__)
            return DONE
    name, *rest = arguments
    try:
        if name not in _COMMANDS:
            raise UserError(f"unknown command {name!r}; known: {', '.join(_COMMANDS)}")
        status: int | None = importlib.import_module(_COMMANDS[name][0]).main(rest)
    except UserError as error:
        print(f"data2vec: error: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("data2vec: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        if not _unread():
            raise
        return UNREAD
    return UNREAD if _unread() else status or DONE


def _unread() -> bool:
    """Whether nobody reads stdout any more; then it leads nowhere, or Python would complain as it ends."""
    try:
        print(end="", flush=True)
        here = select.poll()
        here.register(sys.stdout.fileno(), 0)
        gone = any(event & select.POLLERR for _, event in here.poll(0))
    except BrokenPipeError:
        gone = True
    except (AttributeError, OSError, ValueError):  # no poll on this system, or stdout is no file
        return False
    if gone:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return gone
