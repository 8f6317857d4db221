#!/usr/bin/env bash
# Runs each fuzz target for SECONDS_PER_TARGET (default 20), two at once, from the committed seeds. Prints the count of
# executions of each. Fails if a target finds an error, and prints where the input is. Installs what is missing.
#   fuzz/run.sh [SECONDS_PER_TARGET [TARGET...]]
set -euo pipefail
cd "$(dirname "$0")"

seconds=${1:-20}
shift || true
readonly CARGO_FUZZ=0.13.2 MAX_LEN=16384 RSS_LIMIT_MB=1024 AT_ONCE=2

rustup run nightly rustc --version >/dev/null 2>&1 || rustup toolchain install nightly --profile minimal
[[ $(cargo fuzz --version 2>/dev/null) == *" $CARGO_FUZZ" ]] || cargo install --locked "cargo-fuzz@$CARGO_FUZZ"

targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(sed -n 's/^name = "\(.*\)"$/\1/p' Cargo.toml | tail -n +2)

# The crates have no `unsafe` code for a sanitizer to check, and the search is faster without one. Errors show as
# panics, overflows, failed assertions of the targets, or memory beyond RSS_LIMIT_MB.
cargo +nightly fuzz build --fuzz-dir . --sanitizer none
bin=target/$(rustc +nightly -vV | sed -n 's/^host: //p')/release

one() {
    local target=$1 log=target/$1.log
    mkdir -p "corpus/$target" "artifacts/$target"
    local options=(-max_total_time="$seconds" -max_len=$MAX_LEN -rss_limit_mb=$RSS_LIMIT_MB -timeout=10 -print_final_stats=1)
    [[ -f dict/$target ]] && options+=(-dict="dict/$target")
    if "$bin/$target" "${options[@]}" -artifact_prefix="artifacts/$target/" "corpus/$target" "seeds/$target" >"$log" 2>&1; then
        printf '%-10s %12d executions\n' "$target" "$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
    else
        printf '%-10s FAILED\n' "$target"
        grep -E 'panicked at|ERROR|^artifact_prefix|Test unit written' -A2 "$log" | cut -c1-400 | tail -n 20
        return 1
    fi
}

failed=0
for target in "${targets[@]}"; do
    while (($(jobs -rp | wc -l) >= AT_ONCE)); do wait -n || failed=1; done
    one "$target" &
done
while (($(jobs -rp | wc -l))); do wait -n || failed=1; done
# `wait -n` may have missed a target that had already ended.
for target in "${targets[@]}"; do [[ -z $(ls -A "artifacts/$target" 2>/dev/null) ]] || failed=1; done
((failed == 0)) || {
    echo "a target failed; its input is below $PWD/artifacts; run it with: cargo +nightly fuzz run --fuzz-dir . TARGET FILE" >&2
    exit 1
}
