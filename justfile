# Shortcuts for the commands in CONTRIBUTING.md and tests/README.md. The steps of CI are in .ci/run.

# Lists the recipes.
default:
    @just --list

# Runs README's test command: all tests except interop. For one crate or test: just test -p dhtstore-kad
test *arguments:
    {{ if arguments == "" { ".ci/run test" } else { "cargo test " + arguments } }}

# Runs 50 kills and power cuts of a release build.
crash:
    .ci/run crash

# Runs a benchmark: store, slow_peers, load, wire or compare.
bench name="store" *arguments:
    cargo bench --bench {{ name }} -- {{ arguments }}

# Runs the tests with real Kubo daemons. Needs root, Go and iproute2; the arguments are those of go test.
interop *arguments:
    {{ if arguments == "" { 'sudo env "PATH=$PATH" .ci/run interop' } else { 'sudo env "PATH=$PATH" tests/interop/run.sh ' + arguments } }}

# Runs the fuzz targets, 10 s each. For longer, or for one: just fuzz 300 message
fuzz *arguments:
    {{ if arguments == "" { ".ci/run fuzz" } else { "fuzz/run.sh " + arguments } }}

# Runs the quick checks: formatting, spelling, clippy, documentation.
check:
    .ci/run format typos clippy docs

# Builds the documentation of all crates, private items included. Warnings are errors.
docs:
    .ci/run docs

# Runs everything that CI runs, as root.
ci:
    sudo env "PATH=$PATH" .ci/run
