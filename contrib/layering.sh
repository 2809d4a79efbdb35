#!/bin/sh
# Run the rules of tests/layering.rs alone: they read the sources and need no build of the package.
set -eu
cd "$(dirname "$0")/.."
out=${CARGO_TARGET_DIR:-target}/layering
mkdir -p "$out"
CARGO_MANIFEST_DIR=$PWD rustc --edition 2024 --test -o "$out/layering" tests/layering.rs
CARGO_MANIFEST_DIR=$PWD "$out/layering" --quiet
