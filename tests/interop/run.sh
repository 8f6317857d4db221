#!/bin/sh
# Tests dhtstore against real Kubo daemons, go-libp2p-kad-dht and rust-libp2p: builds the binaries, then runs the Go
# tests of this directory.
#
#   sudo tests/interop/run.sh [-v] [-run NAME] [-count 5 -timeout 60m]      the arguments are those of `go test`
#
# Needs Linux, root, Go (the version in go.mod), `ip` (Debian: iproute2) and cargo. go.mod also sets the version of
# Kubo. Only Go modules are downloaded. The first build of Kubo takes a few minutes, the tests about five.
#
# The tests need root because Kubo's LAN DHT ignores loopback addresses. Each node gets a network namespace with a 10.x
# address, and some nodes also addresses that look public. All are on one bridge, in a namespace without a route to the
# outside. The processes and mounts are in namespaces too, so nothing is left when the tests end, even if they crash.
#
# The mixed network of 30 nodes (mixed_test.go) runs two rounds of churn. To run longer, with the random choices of seed
# 1:
#
#   sudo DHTSTORE_MIXED_MINUTES=10 DHTSTORE_MIXED_SEED=1 tests/interop/run.sh -v -timeout 30m -run Churn
#
# To use binaries that exist already, set DHTSTORE_BIN, IPFS_BIN or KAD_NODE_BIN (examples/kad_node.rs, the rust-libp2p
# nodes).
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
# -count=1, because Go's cache of test results does not see that the binaries have changed.
go test -count=1 -timeout 20m "$@" ./...
