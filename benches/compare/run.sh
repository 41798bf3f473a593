#!/usr/bin/env bash
# nginx, HAProxy and cutover on the same backend in one run: CPU µs per request, requests/s, p50, p99.
#
#   benches/compare/run.sh                    5 rounds of 5 s, three sizes; about 6 minutes after the build
#   benches/compare/run.sh --rounds 9 --seconds 10 --sizes 128,16k
#   benches/compare/run.sh --smoke            the debug build, one second each: does it work at all? No figures to quote
#
# Everything listens on loopback and is stopped by its own pid. The method: benches/README.md.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-$PWD/target}
export CARGO_TARGET_DIR=$target

profile=dist folder=dist
for argument in "$@"; do
    if [[ $argument == --smoke ]]; then profile=dev folder=debug; fi
done

missing=()
PATH=$PATH:/usr/sbin:/sbin
command -v nginx >/dev/null || missing+=(nginx-light)
command -v haproxy >/dev/null || missing+=(haproxy)
command -v wrk >/dev/null || missing+=(wrk)
command -v taskset >/dev/null || missing+=(util-linux)
command -v python3 >/dev/null || missing+=(python3)
if ((${#missing[@]})); then
    # Their services must not start: the packages ask policy-rc.d. One that is there stays as it is.
    policy=/usr/sbin/policy-rc.d ours=0
    if [[ ! -e $policy ]]; then printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && ours=1; fi
    trap '((ours)) && rm -f "$policy"' EXIT
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } >&2
fi

cargo build --locked --profile "$profile" --bin cutover --example raw_backend >&2
python3 benches/compare/compare.py --cutover "$target/$folder/cutover" --backend "$target/$folder/examples/raw_backend" \
    --out "$target/compare" "$@"
