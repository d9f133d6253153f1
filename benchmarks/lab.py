"""How fast the lab answers and how much memory it holds, over a folder of many runs.

    python benchmarks/lab.py [--num-runs 200]

Writes made-up run folders into a temporary place, starts `jepalab lab` over them, and prints the time until the list of
runs is on the screen in headless Chromium (needs `playwright` and a Chromium), the time of one look at the shelf, and
the server's resident memory before any model is loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from jepalab.records import RunFolder
from jepalab.web.shelf import Shelf

NUM_RECORDS, REPEATS = 400, 5


def write_runs(root: Path, num_runs: int) -> None:
    """Half of both camps, with a few thousand numbers each; five are running."""
    for i in range(num_runs):
        space = "ema-embedding" if i % 2 else "input"
        folder = RunFolder(root / f"group-{i % 5}" / f"run-{i}")
        status = "running" if i < 5 else "done"
        folder.describe(
            status=status, steps=10_000, seed=i, objective="MAE", compares={"loss": space}, weights={"loss": 1}
        )
        folder.beat(25 * NUM_RECORDS)
        lines = [{"step": 25 * k + 1, "seconds": k, "loss": {"loss": 1 / (k + 1)}} for k in range(NUM_RECORDS)]
        folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))


def memory(pid: int) -> float:
    """Resident megabytes of a process, where the system says."""
    text = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+) kB", text)
    return int(found[1]) / 1024 if found else float("nan")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--num-runs", type=int, default=200)
    num_runs = parser.parse_args().num_runs
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_runs(root, num_runs)
        began = time.perf_counter()
        Shelf(root).look()
        print(f"one look at {num_runs} runs: {1_000 * (time.perf_counter() - began):.0f} ms")
        command = [sys.executable, "-m", "jepalab", "lab", folder, "--port", "0", "--no-browse"]
        began = time.perf_counter()
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ | {"CI": "1"}) as server:
            assert server.stdout
            address = re.search(r"http://\S+", server.stdout.readline())
            assert address
            print(f"server answers after {time.perf_counter() - began:.2f} s, holds {memory(server.pid):.0f} MB")
            measure_page(address[0], num_runs)
            print(f"after {REPEATS} visits it holds {memory(server.pid):.0f} MB")
            server.terminate()


def measure_page(address: str, num_runs: int) -> None:
    """Prints how long it takes until every run is in the list and curves are drawn."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    ready = f"document.querySelectorAll('#rows tr').length === {num_runs} && !!document.querySelector('#curves canvas')"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        seconds = []
        for _ in range(REPEATS):
            page = browser.new_page()
            began = time.perf_counter()
            page.goto(address)
            while not page.evaluate(ready):
                page.wait_for_timeout(5)
            seconds.append(time.perf_counter() - began)
            page.close()
        browser.close()
    median, worst = statistics.median(seconds), max(seconds)
    print(f"page ready with {num_runs} runs: median {median:.2f} s of {REPEATS}, worst {worst:.2f} s")


if __name__ == "__main__":
    main()
