#!/usr/bin/env bash
# What grows with the configuration: 10,000 routes, and 1,000 apps × 2 colors × 4 endpoints. Some three minutes after the build.
#
#   benches/scale/run.sh            figures as a table; also in target/compare/scale.{md,json}
#   benches/scale/run.sh --smoke    the debug build and a tenth of everything: does it work at all?
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-$PWD/target}
mkdir -p "$target" && target=$(cd "$target" && pwd)
export CARGO_TARGET_DIR=$target

profile=dist folder=dist
for argument in "$@"; do
    if [[ $argument == --smoke ]]; then profile=dev folder=debug; fi
done
cargo build --locked --profile "$profile" --bin cutover --example bench_backend --example bench_load --example bench_scale >&2
python3 benches/scale/scale.py --cutover "$target/$folder/cutover" --backend "$target/$folder/examples/bench_backend" \
    --load "$target/$folder/examples/bench_load" --pieces "$target/$folder/examples/bench_scale" --out "$target/compare" "$@"
