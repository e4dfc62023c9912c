"""How long ``import data2vec`` and ``data2vec --help`` take, each in fresh processes.

    python benchmarks/import_time.py

Wall time is what a user waits; processor time is what a busy machine cannot falsify.
"""

import resource
import statistics
import subprocess
import sys
import time

RUNS = 15
IMPORT = """
import time
wall, cpu = time.perf_counter(), time.process_time()
import data2vec
print(time.perf_counter() - wall, time.process_time() - cpu)
"""


def import_seconds() -> tuple[float, float]:
    """(wall, processor) seconds of the import alone, without the interpreter's own start."""
    wall, cpu = subprocess.check_output([sys.executable, "-c", IMPORT], text=True).split()
    return float(wall), float(cpu)


def process_seconds(*arguments: str) -> tuple[float, float]:
    """(wall, processor) seconds of a whole process."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def report(name: str, seconds: list[tuple[float, float]], target: int) -> None:
    """One line: medians in milliseconds."""
    wall, cpu = (1e3 * statistics.median(column) for column in zip(*seconds, strict=True))
    print(f"{name:<32} wall {wall:6.0f} ms   processor {cpu:6.0f} ms   target {target} ms")


def main() -> None:
    """Measure and print."""
    report("import data2vec", [import_seconds() for _ in range(RUNS)], 50)
    for arguments in (["--help"], ["pretrain", "audio", "--help"]):
        command = ["-m", "data2vec", *arguments]
        report("data2vec " + " ".join(arguments), [process_seconds(*command) for _ in range(RUNS)], 500)


if __name__ == "__main__":
    main()
