#!/bin/sh
# Keeps the last five. The real one: pg_dump "$DATABASE_URL" > "$new"
set -eu
mkdir -p backups
n=$(ls backups | wc -l)
new=backups/$(date +%Y%m%dT%H%M%S)-$$.sql
echo "dump of $CUTOVER_APP before $CUTOVER_REVISION" > "$new"
ls -t backups/*.sql | tail -n +6 | xargs -r rm --
echo "$new, $n before it"
