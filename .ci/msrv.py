"""Checks that no dependency asks for a newer Rust than the package itself does.

The argument is a file with the output of `cargo metadata`.
"""

import json
import sys


def version(text):
    return tuple(int(part) for part in (text + ".0.0").split(".")[:3])


with open(sys.argv[1], encoding="utf-8") as file:
    metadata = json.load(file)
ours = next(p for p in metadata["packages"] if p["id"] == metadata["resolve"]["root"])
limit = ours["rust_version"]
newer = [
    f'{package["name"]} {package["version"]} asks for Rust {package["rust_version"]}'
    for package in metadata["packages"]
    if package["rust_version"] and version(package["rust_version"]) > version(limit)
]
if newer:
    sys.exit(f"error: rust-version is {limit}, but\n  " + "\n  ".join(sorted(newer)))
print(f'{len(metadata["packages"])} packages, none of which asks for more than Rust {limit}')
