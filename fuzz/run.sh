#!/usr/bin/env bash
# usage: run.sh SECONDS [TARGET...]
# Each target, or each of those named, for so long, as many at a time as there are cores, or as FUZZ_JOBS
# says; with 0 seconds they are only built. The first that finds something ends it. What is learnt stays in
# target/corpus; `corpus` is only read.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:?usage: run.sh SECONDS [TARGET...]}
shift
targets=("$@")
if [ $# = 0 ]; then
    for source in fuzz_targets/*.rs; do
        targets+=("$(basename "$source" .rs)")
    done
fi

# The flags of cargo-fuzz without a sanitizer, which any toolchain takes.
host=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS="--cfg fuzzing -Cdebug-assertions -Cpasses=sancov-module
    -Cllvm-args=-sanitizer-coverage-level=4
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table
    -Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo build --locked --release --target "$host" --bins
built=target/$host/release
[ "$seconds" != 0 ] || exit 0

run() {
    local target=$1 log=target/fuzz-$1.log options=()
    mkdir -p "target/corpus/$target" "corpus/$target"
    [ ! -f "dictionaries/$target" ] || options+=("-dict=dictionaries/$target")
    if ! "$built/$target" "target/corpus/$target" "corpus/$target" "${options[@]}" \
        -max_total_time="$seconds" -timeout=20 -rss_limit_mb=1024 -max_len=4096 \
        -artifact_prefix="target/$target-" -print_final_stats=1 >"$log" 2>&1; then
        tail -n 60 "$log" >&2
        return 255
    fi
    printf '%s: %s runs; %s\n' "$target" \
        "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")" \
        "$(sed -n 's/^#[0-9]*\tDONE *//p' "$log")"
}
export -f run
export seconds built
printf '%s\n' "${targets[@]}" | xargs -P "${FUZZ_JOBS:-$(nproc)}" -I TARGET bash -c 'run TARGET'
