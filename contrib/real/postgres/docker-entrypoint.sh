#!/bin/bash
# Root becomes the server's user; an empty data directory is set up first.
set -eo pipefail
if [ "$(id -u)" = 0 ]; then
    chown postgres "$PGDATA"
    chmod 700 "$PGDATA"
    exec setpriv --reuid postgres --regid postgres --init-groups "$0" "$@"
fi
if [ "$1" = postgres ] && ! [ -s "$PGDATA/PG_VERSION" ]; then
    initdb --username=postgres --auth=trust --no-sync >/dev/null
    pg_ctl -w start -o "-c listen_addresses=''" >/dev/null
    for file in /docker-entrypoint-initdb.d/*.sql; do psql -v ON_ERROR_STOP=1 -U postgres -f "$file"; done
    pg_ctl -w stop -m fast >/dev/null
    echo 'set up; ready to start'
fi
exec "$@" -c listen_addresses= -c fsync=off
