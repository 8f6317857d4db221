#!/bin/sh
# Verifies dhtstore.service with systemd-analyze, and the sysusers file if systemd-sysusers is installed.
# usage: ops/systemd/verify.sh [BINARY]   (default: the debug build)
# The program of ExecStart= must exist, so the script checks a copy of the unit that names the real binary.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
binary=${1:-$here/../../target/debug/dhtstore}
if ! command -v systemd-analyze >/dev/null; then
    echo "verify.sh: cannot verify the unit: systemd-analyze is not installed; install the package systemd" >&2
    exit 69
fi
if [ ! -x "$binary" ]; then
    echo "verify.sh: cannot verify the unit: no binary at $binary; run 'cargo build', or name a binary" >&2
    exit 66
fi
binary=$(CDPATH='' cd -- "$(dirname -- "$binary")" && pwd)/$(basename -- "$binary")
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
sed "s|/usr/bin/dhtstore|$binary|" "$here/dhtstore.service" > "$copy/dhtstore.service"
# Messages about other units of this machine are ignored; any message about this one is a failure.
systemd-analyze verify --man=no "$copy/dhtstore.service" 2> "$copy/complaints" || status=$?
if grep -F dhtstore "$copy/complaints" >&2 || { [ "${status:-0}" -ne 0 ] && cat "$copy/complaints" >&2; }; then
    exit 1
fi
if command -v systemd-sysusers >/dev/null; then
    mkdir -p "$copy/root/etc"
    systemd-sysusers --root="$copy/root" "$here/dhtstore.sysusers"
    grep -q '^dhtstore:' "$copy/root/etc/passwd"
fi
echo "dhtstore.service and dhtstore.sysusers: ok"
