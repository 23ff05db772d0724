"""Counts the crates that each feature brings to a user, and compares with docs/DEPENDENCIES.md.

With --write, writes the table into that file.
"""

import re
import subprocess
import sys

FEATURES = ["", "client,ring", "client,aws-lc-rs", "server", "testing,ring", "k8s-openapi", "k8s-pb", "cli,ring"]
FILE = "docs/DEPENDENCIES.md"


def count(features):
    """Crates of a build for this platform, the package itself not counted."""
    tree = subprocess.run(
        ["cargo", "tree", "--locked", "-e", "normal,build", "--prefix", "none", "--no-default-features"]
        + ["--target", "x86_64-unknown-linux-gnu", "--features", features],
        check=True, capture_output=True, text=True,
    ).stdout
    return len({tuple(line.split()[:2]) for line in tree.splitlines() if line.strip()}) - 1


rows = [f"| {('`' + f.replace(',', '`, `') + '`') if f else 'none'} | {count(f)} |" for f in FEATURES]
table = "\n".join(["| features | crates |", "|---|---:|", *rows])
with open(FILE, encoding="utf-8") as file:
    text = file.read()
new = re.sub(r"\| features \|.*?(?=\n\n|\Z)", table, text, count=1, flags=re.S)
if "--write" in sys.argv:
    with open(FILE, "w", encoding="utf-8") as file:
        file.write(new.rstrip("\n") + "\n")
elif new.rstrip("\n") != text.rstrip("\n"):
    sys.exit(f"error: {FILE} is not what cargo tree says:\n{table}\nIf that is meant, run this with --write")
print(table)
