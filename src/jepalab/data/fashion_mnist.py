"""Fashion-MNIST (Xiao et al. 2017, 1708.07747; MIT licence), fetched from its makers' server, whole or not at all."""

from __future__ import annotations

import hashlib
import shutil
import sys
import time
import urllib.request
from http.client import HTTPException
from pathlib import Path

URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
# sha256 of the four files as Zalando serves them; torchvision's prototype datasets pin the same.
SHA256 = {
    "train-images-idx3-ubyte.gz": "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "train-labels-idx1-ubyte.gz": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "t10k-images-idx3-ubyte.gz": "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "t10k-labels-idx1-ubyte.gz": "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
}
# Debian's package holds the same data, compressed again.
DEBIAN_SHA256 = {
    "train-images-idx3-ubyte.gz": "b0564c3eedabfbf835052cff8503ea422014ce006caf5b757f851416ee8300c7",
    "train-labels-idx1-ubyte.gz": "0ae29f65d86684f32d1b9c85147786c547b9c6aebcaf235f0400a0cce308b056",
    "t10k-images-idx3-ubyte.gz": "cc1d090a38ace84dfa1aa66e3ada7c336ef481a96936906477e6dd344da56eaa",
    "t10k-labels-idx1-ubyte.gz": "8d3605d196f4be44669e46906da9733c8131fef761fdbfec72c424d5222f1a05",
}
# What stands for a path where data is asked for, and where Debian's package puts the files.
NAME = "fashion-mnist"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
NUM_TRIES = 3
TIMEOUT_SECONDS = 30


def find_fashion_mnist(cache: Path) -> Path:
    """The folder of the four files: Debian's where it is installed, else one in the cache, fetched the first time.

    Says on standard error where it lies. OSError as `download_fashion_mnist`.
    """
    folder = DEBIAN if all((DEBIAN / name).is_file() for name in SHA256) else cache / NAME
    if folder != DEBIAN:
        missing = [name for name in SHA256 if not (folder / name).is_file()]
        if missing:
            print(f"fetching Fashion-MNIST (30 MB, MIT licence) from {URL}", file=sys.stderr)
        download_fashion_mnist(folder)
    print(f"Fashion-MNIST: {folder}", file=sys.stderr)
    return folder


def download_fashion_mnist(folder: Path, *, pause: float = 2.0) -> Path:
    """Puts the four files (30 MB) into `folder`, for `open_images`; those that are there and whole are left alone.

    pause  seconds before a second try, doubled before a third.

    Raises:
        OSError: a file could not be fetched, or is not the one that was pinned, after three tries.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, wanted in SHA256.items():
        if (folder / name).exists() and _sha256(folder / name) in {wanted, DEBIAN_SHA256[name]}:
            continue
        _fetch(name, wanted, folder / name, pause)
    return folder


def _fetch(name: str, wanted: str, target: Path, pause: float) -> None:
    partial = target.with_name(f"{name}.partial")
    why = ""
    try:
        for i in range(NUM_TRIES):
            time.sleep(pause * 2 ** (i - 1) if i else 0)
            try:
                with urllib.request.urlopen(URL + name, timeout=TIMEOUT_SECONDS) as answer, partial.open("wb") as file:
                    shutil.copyfileobj(answer, file)
            except (OSError, HTTPException) as error:
                why = str(error)
                continue
            found = _sha256(partial)
            if found == wanted:
                partial.replace(target)
                return
            why = f"its sha256 is {found}, wanted {wanted}"
    finally:
        partial.unlink(missing_ok=True)
    raise OSError(
        f"Could not fetch {URL}{name} in {NUM_TRIES} tries ({why}). Without a network, Debian has the same files: "
        "apt-get install dataset-fashion-mnist, then open /usr/share/datasets/fashion-mnist."
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
