# The verbs of this project. `just` alone lists them.

set shell := ["bash", "-euo", "pipefail", "-c"]

_default:
    @just --list

# What CI runs, to the letter.
check:
    ./.ci/run

# Everything the tests need is installed first (Debian, PyPI), then all tests run.
test *ARGS:
    ./tests/run {{ARGS}}

# Only the tests with real app servers, kills and faults. SIZE is `quick` or `full` (1,000 switches, 500 kills).
e2e SIZE="quick":
    CUTOVER_E2E={{SIZE}} ./tests/run --only e2e

# The pieces, with criterion.
bench *ARGS:
    cargo bench --bench pieces {{ARGS}}

# The build to run under load: LTO, and laid out by how it runs (PGO). Some twelve minutes; prints where it is.
dist:
    ./benches/pgo/build.sh

# Beside nginx, HAProxy, Envoy, Caddy and Pingora in one run (--quick: some minutes); see benches/README.md.
compare *ARGS:
    ./benches/compare/run.sh {{ARGS}}

# What grows with the configuration: 10,000 routes, 1,000 apps; see benches/README.md.
scale *ARGS:
    ./benches/scale/run.sh {{ARGS}}

# The switch under load at full size, again and again for MINUTES (each round has a new seed).
soak MINUTES="60":
    end=$((SECONDS + {{MINUTES}} * 60)); round=0; \
    while ((SECONDS < end)); do round=$((round + 1)); echo "round $round"; CUTOVER_E2E=full ./tests/run --only e2e; done

# The property tests (config text, changed bytes, probe verdicts), the journal under bit flips, the simulation of the switch
# machine, and HTTP/1.1 with changed bytes against the whole proxy, with many more cases than in a test run.
fuzz CASES="200000":
    PROPTEST_CASES={{CASES}} CUTOVER_SIMULATIONS={{CASES}} cargo test --release --lib --test simulation -- config::tests::values judge store::tests the_machine
    CUTOVER_FUZZ=$(({{CASES}} / 40 + 1)) cargo test --release --test it -- corpus::mutations

# Two built-in colors and the proxy on free loopback ports.
demo:
    cargo run --release -- demo
