#!/bin/sh
# run.sh LAB TESTS: brings the lab up, builds and loads the image, runs the tests whose names match, brings the lab down. A table of what they
# have shown is the last thing that is printed.
set -eu
lab=$(realpath "$1")
cd "$(dirname "$0")"
work=$(mktemp -d)
trap '"$lab/down.sh" >/dev/null 2>&1 || true; rm -rf "$work"' EXIT
"$lab/build.sh" >"$work/build.log" 2>&1 || { cat "$work/build.log"; exit 1; }
"$lab/up.sh" --nodes 2 --metrics >"$work/environment"
. "$work/environment"
GO=${GO:-go} ../image.sh rayflux:dev "$work/rayflux.tar"
"$lab/load-image.sh" "$work/rayflux.tar" >/dev/null
RAYFLUX_LAB_DIR=$lab "${GO:-go}" test -count=1 -timeout 60m -v -run "$2" .
