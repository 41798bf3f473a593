#!/usr/bin/env bash
# The build to run under load: profile `dist`, laid out by how it runs (profile-guided optimisation, PGO).
#
#   benches/pgo/build.sh            builds with counters, trains, builds again: target/pgo/cutover, some twelve minutes on two cores
#
# The training is the comparison's own work (benches/compare: HTTP/1.1, HTTP/2, TLS, gRPC, WebSockets, switches, reloads), with
# cutover alone. Needs what that needs, and llvm-profdata of the compiler's LLVM (rustc -vV): Debian's llvm-22.
set -euo pipefail
cd "$(dirname "$0")/../.."
target=${CARGO_TARGET_DIR:-$PWD/target}
mkdir -p "$target" && target=$(cd "$target" && pwd)
work=$target/pgo
triple=$(rustc -vV | sed -n 's/^host: //p')
llvm=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')

missing=()
for pair in "llvm-profdata-$llvm:llvm-$llvm" wrk:wrk h2load:nghttp2-client openssl:openssl; do
    command -v "${pair%%:*}" >/dev/null || missing+=("${pair##*:}")
done
if ((${#missing[@]})); then
    echo "pgo: not installed: ${missing[*]} (apt-get install ${missing[*]})" >&2
    exit 1
fi

# For a named target, so that build scripts and macros are left alone.
build() {
    RUSTFLAGS="${RUSTFLAGS:-} $2" CARGO_TARGET_DIR=$work/$1 \
        cargo build --locked --profile dist --target "$triple" --bin cutover >&2
}

rm -rf "$work/profiles" && mkdir -p "$work/profiles"
CARGO_TARGET_DIR=$target cargo build --locked --profile dist --example bench_backend --example bench_load >&2
build counting "-Cprofile-generate=$work/profiles"
python3 benches/compare/compare.py --cutover "$work/counting/$triple/dist/cutover" --out "$work/training" \
    --backend "$target/dist/examples/bench_backend" --load "$target/dist/examples/bench_load" --envoy none --pingora none \
    --only cutover --rounds 1 --seconds 2 --warmup 0.2 --parts rows,switch,operations --switches 3 >&2
"llvm-profdata-$llvm" merge -o "$work/cutover.profdata" "$work"/profiles/*.profraw
build used "-Cprofile-use=$work/cutover.profdata"
install -m 755 "$work/used/$triple/dist/cutover" "$work/cutover"
echo "$work/cutover"
