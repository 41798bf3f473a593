#!/usr/bin/env bash
# Makes a development CA and, signed by it, an ECDSA and an RSA certificate for the same names. For tests on your own
# machine: nothing that it makes is to be trusted elsewhere, and git ignores it.
#
#   certs/dev.sh                              for localhost, *.localhost, 127.0.0.1 and ::1, into certs/dev
#   certs/dev.sh DIR NAME...                  for other names, into DIR
#
# Then: certificates = [{ cert = "certs/dev/ecdsa.pem", key = "certs/dev/ecdsa.key" },
#                       { cert = "certs/dev/rsa.pem", key = "certs/dev/rsa.key" }]
# and:  curl --cacert certs/dev/ca.pem https://localhost:8443/
# The CA is made once and kept; the certificates are made anew each time, good for 90 days.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$here/dev}
shift || true
(($#)) || set -- localhost '*.localhost' 127.0.0.1 ::1

mkdir -p "$out"
cd "$out"
umask 077

names=
for name in "$@"; do
    case $name in
        *:* | *[0-9].[0-9]*.[0-9]*.[0-9]*) names+=,IP:$name ;;
        *) names+=,DNS:$name ;;
    esac
done
names=${names#,}

ecdsa() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null ||
    openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }
rsa() { openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$1" 2>/dev/null ||
    openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out "$1" 2>/dev/null; }

if [[ ! -e ca.key || ! -e ca.pem ]]; then
    ecdsa ca.key
    openssl req -x509 -new -key ca.key -days 3650 -subj "/CN=cutover development CA" \
        -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign -out ca.pem
fi

for kind in ecdsa rsa; do
    # Under other names first: a running cutover watches, and must not see one half of a pair.
    "$kind" "$kind.key.new"
    openssl req -new -key "$kind.key.new" -subj "/CN=$1" -out "$kind.csr"
    openssl x509 -req -in "$kind.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 90 -out "$kind.pem.new" \
        -extfile <(printf 'subjectAltName=%s\nkeyUsage=critical,digitalSignature\nextendedKeyUsage=serverAuth\nbasicConstraints=critical,CA:FALSE\n' "$names") \
        2>/dev/null
    mv "$kind.key.new" "$kind.key"
    mv "$kind.pem.new" "$kind.pem"
    rm "$kind.csr"
    chmod 644 "$kind.pem"
done
chmod 644 ca.pem
printf 'made %s for %s\n' "$PWD/{ca,ecdsa,rsa}.pem" "$*"
