#!/bin/sh
# Check the dependencies: licences, sources, banned crates and, where its database can be fetched, known flaws.
set -eu
cd "$(dirname "$0")/.."
if ! cargo deny --version >/dev/null 2>&1; then
    if [ "${CI:-}" = true ]; then
        cargo install --locked cargo-deny
    else
        echo 'SKIPPED: dependency check: cargo-deny is missing; install it with: cargo install --locked cargo-deny' >&2
        exit 0
    fi
fi
cargo deny --all-features check --hide-inclusion-graph bans licenses sources
# The database of known flaws is on the network; being offline is no reason to fail.
if cargo deny fetch db >/dev/null 2>&1; then
    cargo deny --all-features check --hide-inclusion-graph advisories
else
    echo 'SKIPPED: known flaws of dependencies: the advisory database cannot be fetched' >&2
fi
