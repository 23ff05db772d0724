#!/usr/bin/env bash
# usage: run.sh SECONDS   each target for so long; the first that finds something ends it
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:?usage: run.sh SECONDS}
for target in $(cargo +nightly fuzz list); do
    printf '\n==> %s\n' "$target"
    mkdir -p "corpus/$target"
    cargo +nightly fuzz run "$target" "corpus/$target" -- -max_total_time="$seconds" -timeout=10
done
