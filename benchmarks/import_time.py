"""How long ``import data2vec`` and ``data2vec --help`` take, each in a fresh process: the median of `RUNS`.

python benchmarks/import_time.py
"""

import statistics
import subprocess
import sys
import time

RUNS = 15
IMPORT = "import time; t = time.perf_counter(); import data2vec; print(time.perf_counter() - t)"


def median(seconds: list[float]) -> str:
    return f"{statistics.median(seconds) * 1e3:7.1f} ms   (fastest {min(seconds) * 1e3:.1f})"


def process_seconds(*arguments: str) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    inside = [float(subprocess.check_output([sys.executable, "-c", IMPORT])) for _ in range(RUNS)]
    print(f"import data2vec            {median(inside)}   target 50 ms, without the interpreter's own start")
    for arguments in (["--help"], ["pretrain", "audio", "--help"]):
        whole = [process_seconds("-m", "data2vec", *arguments) for _ in range(RUNS)]
        print(f"{'data2vec ' + ' '.join(arguments):<26} {median(whole)}   target 500 ms, whole process")


if __name__ == "__main__":
    main()
