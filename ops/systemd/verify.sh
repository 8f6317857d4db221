#!/bin/sh
# Verifies dhtstore.service with systemd's own checker, and the sysusers file if its tool is there.
# usage: ops/systemd/verify.sh [BINARY]   (default: the debug build)
# systemd wants the programs of ExecStart= to exist, so a copy is checked that names the real binary.
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
binary=${1:-$here/../../target/debug/dhtstore}
if ! command -v systemd-analyze >/dev/null; then
    echo "verify.sh: systemd-analyze is not installed (package systemd); nothing verified" >&2
    exit 69
fi
if [ ! -x "$binary" ]; then
    echo "verify.sh: no binary at $binary; run 'cargo build' first, or name one" >&2
    exit 66
fi
binary=$(CDPATH='' cd -- "$(dirname -- "$binary")" && pwd)/$(basename -- "$binary")
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
sed "s|/usr/bin/dhtstore|$binary|" "$here/dhtstore.service" > "$copy/dhtstore.service"
# Complaints about other units of this machine are not ours; any about this one is a failure.
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
