#!/usr/bin/env bash
# usage: coverage.sh [DIR]
# Plays the seeds to all targets, and what DIR/TARGET has, and prints as Markdown which lines of the
# library some input reached. Needs a nightly toolchain with llvm-tools.
set -euo pipefail
corpus=$(realpath "${1:-/dev/null}")
cd "$(dirname "$0")"
export CARGO_TARGET_DIR="$PWD/target/coverage"
RUSTFLAGS="--cfg fuzzing -Cinstrument-coverage -Cdebug-assertions" \
    cargo +nightly build --locked --release --bins
tools=$(dirname "$(find "$(rustc +nightly --print sysroot)" -name llvm-cov)")
profiles=$CARGO_TARGET_DIR/profiles
rm -rf "$profiles"
mkdir -p "$profiles"
programs=()
for source in fuzz_targets/*.rs; do
    target=$(basename "$source" .rs)
    program=$CARGO_TARGET_DIR/release/$target
    programs+=(-object "$program")
    inputs=()
    for inputs_of in "corpus/$target" "$corpus/$target"; do
        [ ! -d "$inputs_of" ] || inputs+=("$inputs_of")
    done
    LLVM_PROFILE_FILE="$profiles/$target.profraw" "$program" -runs=0 "${inputs[@]}" 2>"$profiles/$target.log"
done
"$tools/llvm-profdata" merge -sparse "$profiles"/*.profraw -o "$profiles/all"
echo "| file | lines | reached, % |"
echo "|---|---:|---:|"
"$tools/llvm-cov" export -summary-only "${programs[@]:1}" -instr-profile="$profiles/all" \
    -ignore-filename-regex='(registry|rustc|rustlib|fuzz)/' 2>"$profiles/export.log" |
    python3 -c '
import json, os, sys

root = os.path.dirname(os.getcwd()) + os.sep
for file in json.load(sys.stdin)["data"][0]["files"]:
    name, lines = file["filename"].removeprefix(root), file["summary"]["lines"]
    print("| {} | {} | {:.0f} |".format(name, lines["count"], lines["percent"]))
'
