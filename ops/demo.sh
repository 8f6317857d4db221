#!/usr/bin/env bash
# Shows the main job end to end: a network of 20 dhtstore processes on loopback keeps the provider records of real files
# across a SIGKILL of every process at once.
#
#   ops/demo.sh [--nodes N] [--announcers N] [--max N] [--expect N] [--release] DIRECTORY
#
# The steps: announce the CID (CIDv1, raw, sha2-256) of every file below DIRECTORY from several nodes; kill all nodes
# with SIGKILL; restart all but the announcers, so that nothing can be announced again; find every CID; restart the
# announcers and find every CID again. Two new observer nodes without any records do the finding, so everything that
# they find comes from the network. Traffic stays on loopback.
set -euo pipefail
export LC_ALL=C

nodes=20 announcers=4 max=10000 expect= profile=debug directory=
while (($#)); do
  case $1 in
    --nodes) nodes=$2; shift 2 ;;
    --announcers) announcers=$2; shift 2 ;;
    --max) max=$2; shift 2 ;;
    --expect) expect=$2; shift 2 ;;
    --release) profile=release; shift ;;
    -h | --help) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 0 ;;
    -*) echo "demo: unknown option $1; see --help" >&2; exit 64 ;;
    *) directory=$1; shift ;;
  esac
done
[[ -d $directory ]] || { echo "demo: cannot find the directory '$directory'; name one that has files" >&2; exit 64; }
((nodes > announcers && announcers > 0)) || {
  echo "demo: cannot use these numbers: set --nodes above --announcers, and --announcers to at least 1" >&2
  exit 64
}

root=$(cd "$(dirname "$0")/.." && pwd)
if [[ $profile == release ]]; then (cd "$root" && cargo build --quiet --locked --release); else (cd "$root" && cargo build --quiet --locked); fi
dhtstore=${CARGO_TARGET_DIR:-$root/target}/$profile/dhtstore

work=$(mktemp -d)
declare -A pid=()
cleanup() {
  for p in "${pid[@]}"; do kill -9 "$p" 2>/dev/null || true; done
  rm -rf "$work"
}
trap cleanup EXIT INT TERM

say() { printf '%-24s %s\n' "$1" "$2"; }
seconds() { printf '%d.%d s' $((($2 - $1) / 1000)) $((($2 - $1) % 1000 / 100)); }
now() { date +%s%3N; }
on() { local n=$1; shift; "$dhtstore" --data-dir "$work/$n" -q "$@"; }

# One port per node, kept across the restart, as a server keeps its port.
port_base=$((10000 + RANDOM % 20000))

start() {
  local n=$1
  shift
  "$dhtstore" --data-dir "$work/$n" run --listen "/ip4/127.0.0.1/tcp/$((port_base + n))" "$@" >"$work/$n.log" 2>&1 &
  pid[$n]=$!
  disown "${pid[$n]}"
}

# Waits until the processes have ended.
wait_until_ended() {
  local p tries
  for p in "$@"; do
    for ((tries = 0; tries < 300; tries++)); do
      kill -0 "$p" 2>/dev/null || break
      sleep 0.05
    done
  done
}

# Starts nodes without records and waits until they know the network.
observers() {
  local n
  for n in "$@"; do start "$n" --bootstrap "$seed"; done
  wait_until_ready "$@"
  wait_until_joined "$@"
}

# Waits until each node knows some other nodes of the network.
wait_until_joined() {
  local n tries
  for n in "$@"; do
    for ((tries = 0; tries < 300; tries++)); do
      (($(on "$n" closest --local --format ids "$seed_id" | sort -u | wc -l) >= (nodes > 8 ? 5 : nodes - 1))) && break
      sleep 0.1
    done
  done
}

wait_until_ready() {
  local n tries
  for n in "$@"; do
    for ((tries = 0; ; tries++)); do
      on "$n" id >/dev/null 2>&1 && break
      kill -0 "${pid[$n]}" 2>/dev/null || { echo "demo: node $n ended; the end of its log:" >&2; tail -5 "$work/$n.log" >&2; exit 1; }
      ((tries < 300)) || { echo "demo: node $n did not start within 30 s; try fewer --nodes" >&2; exit 1; }
      sleep 0.1
    done
  done
}

# Looks up every CID. Each of the named nodes looks up a share of them. Prints "<found> <found with an address>
# <seconds>".
find_all() {
  local begin shares=$# i=0 n jobs=()
  rm -f "$work"/found.*
  begin=$(now)
  for n in "$@"; do
    awk -v i=$i -v m="$shares" 'NR % m == i' "$work/cids" >"$work/share.$n"
    on "$n" findprovs -n 1 --format ndjson --file "$work/share.$n" >"$work/found.$n" &
    jobs+=($!)
    i=$((i + 1))
  done
  for job in "${jobs[@]}"; do wait "$job"; done
  local found with
  found=$(cat "$work"/found.* | grep -o '"cid":"[^"]*"' | sort -u | wc -l)
  with=$(cat "$work"/found.* | grep -v '"addresses":\[\]' | grep -o '"cid":"[^"]*"' | sort -u | wc -l)
  echo "$found $with $(seconds "$begin" "$(now)")"
}

# f01551220<digest> is the CIDv1 of a raw block, in base16: 01 version, 55 raw, 12 20 sha2-256 of 32 bytes.
find "$directory" -type f -size +0 -print0 | xargs -0 sha256sum | sed 's/^\\//; s/^/f01551220/; s/ .*//' | awk '!seen[$0]++' >"$work/all"
head -n "$max" "$work/all" >"$work/cids"
files=$(wc -l <"$work/cids")
((files > 0)) || { echo "demo: cannot find files below $directory; name a directory that has some" >&2; exit 66; }

begin=$(now)
start 0
wait_until_ready 0
seed=$(on 0 id --bootstrap | head -1)
seed_id=${seed##*/}
for ((n = 1; n < nodes; n++)); do start "$n" --bootstrap "$seed"; done
everybody=($(seq 0 $((nodes - 1))))
publishers=($(seq 1 "$announcers"))
keepers=(0 $(seq $((announcers + 1)) $((nodes - 1))))
wait_until_ready "${everybody[@]}"
wait_until_joined "${everybody[@]}"
say "nodes" "$nodes processes, up in $(seconds "$begin" "$(now)")"

begin=$(now)
jobs=()
for n in "${publishers[@]}"; do
  awk -v i=$((n - 1)) -v m="$announcers" 'NR % m == i' "$work/cids" >"$work/announce.$n"
  on "$n" provide --file "$work/announce.$n" --wait >"$work/announced.$n" &
  jobs+=($!)
done
for job in "${jobs[@]}"; do wait "$job"; done
say "announced" "$files CIDs from $announcers nodes, in $(seconds "$begin" "$(now)")"

observers 101 102
read -r found with took <<<"$(find_all 101 102)"
say "found before" "$found of $files in $took"

# A crash may lose records of the last second, until they are announced again. So let that second pass first.
sleep 2
kill -9 "${pid[@]}"
wait_until_ended "${pid[@]}"
say "killed" "${#pid[@]} processes with SIGKILL"

begin=$(now)
for n in "${keepers[@]}"; do start "$n"; done
wait_until_ready "${keepers[@]}"
say "restarted" "${#keepers[@]} nodes without bootstrap list, announcers down, in $(seconds "$begin" "$(now)")"
observers 103 104
read -r found with took <<<"$(find_all 103 104)"
say "found after" "$found of $files in $took"
say "found with addresses" "$with of $files"

for n in "${publishers[@]}"; do start "$n"; done
wait_until_ready "${publishers[@]}"
read -r found_all with_all took <<<"$(find_all 103 104)"
say "all nodes back" "$found_all of $files in $took, $with_all with addresses"

for p in "${pid[@]}"; do kill -TERM "$p" 2>/dev/null || true; done
wait_until_ended "${pid[@]}"
if [[ -n $expect ]] && ((files != expect || found != expect || with != expect || found_all != expect || with_all != expect)); then
  echo "demo: expected $expect in each line above" >&2
  exit 1
fi
