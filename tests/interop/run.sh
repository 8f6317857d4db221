#!/bin/sh
# Real Kubo daemons, go-libp2p-kad-dht and rust-libp2p against dhtstore: builds what is needed, then runs the Go tests
# of this directory against the binaries.
#
#   sudo tests/interop/run.sh [-v] [-run NAME] [-count 5 -timeout 60m]      arguments are those of `go test`
#
# Needs Linux, root, Go (the version in go.mod), `ip` (Debian: iproute2) and, for dhtstore, cargo. The Kubo version is
# the one in go.mod; Go modules are all that is downloaded. The first build of Kubo takes some minutes, the tests some
# five.
#
# Root, because Kubo's LAN DHT takes no loopback addresses: every node gets a network namespace with a 10.x address,
# some also addresses that look public, all behind one bridge in a namespace that no route leaves. Kernel namespaces
# hold the processes and mounts too, so nothing stays behind, however the tests end.
#
# The mixed network of 30 nodes (mixed_test.go) makes two rounds of churn. For more, with the random choices of another run:
#
#   sudo DHTSTORE_MIXED_MINUTES=10 DHTSTORE_MIXED_SEED=1 tests/interop/run.sh -v -timeout 30m -run Churn
#
# Taken as they are if given: DHTSTORE_BIN, IPFS_BIN, KAD_NODE_BIN (examples/kad_node.rs, the rust-libp2p nodes).
set -eu
cd "$(dirname "$0")"

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -z "${DHTSTORE_BIN:-}" ]; then
    nice cargo build --locked --manifest-path ../../Cargo.toml
    DHTSTORE_BIN=$PWD/../../target/debug/dhtstore
fi
if [ -z "${KAD_NODE_BIN:-}" ]; then
    nice cargo build --locked --manifest-path ../../Cargo.toml --example kad_node
    KAD_NODE_BIN=$PWD/../../target/debug/examples/kad_node
fi
if [ -z "${IPFS_BIN:-}" ]; then
    nice go build -p 2 -o "$dir/ipfs" github.com/ipfs/kubo/cmd/ipfs
    IPFS_BIN=$dir/ipfs
fi
export DHTSTORE_BIN IPFS_BIN KAD_NODE_BIN
# -count=1: a cached result says nothing about new binaries.
go test -count=1 -timeout 20m "$@" ./...
