#!/bin/sh
# Smoke and integration tests over a port-forward. cutover says which color; `cutover smoke green` runs this alone.
set -eu
log=$(mktemp)
kubectl port-forward "deployment/vcci-$CUTOVER_COLOR" :8080 > "$log" 2>&1 &
forward=$!
trap 'kill "$forward" 2> /dev/null || true; rm -f "$log"' EXIT
address=
while [ -z "$address" ]; do
  kill -0 "$forward" 2> /dev/null || { cat "$log"; exit 1; }
  address=$(sed -n 's/^Forwarding from \(127\.0\.0\.1:[0-9]*\) .*/\1/p' "$log" | head -n 1)
  [ -n "$address" ] || sleep 0.1
done
for path in /health/live /health/ready /v1/items; do
  status=$(curl -sS -o /dev/null -w '%{http_code}' --max-time 10 "http://$address$path")
  echo "GET $path: $status"
  [ "$status" = 200 ]
done
