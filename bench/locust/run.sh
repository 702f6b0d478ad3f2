#!/usr/bin/env bash
# Runs Locust, headless, against a RayFlux started for it. USERS, DURATION and RATE (publishes per second) are taken from
# the environment. Ends with Locust's status: 1 when anything failed, was lost, repeated or reordered.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
out=$PWD/.cache/locust
users=${USERS:-200} duration=${DURATION:-60s} rate=${RATE:-600}
# shellcheck source=server.sh
. "$here/server.sh"

mkdir -p "$out"
if ! cmp -s "$here/requirements.txt" "$out/venv/requirements.txt"; then
  python3 -m venv --clear "$out/venv"
  "$out/venv/bin/pip" install --quiet --requirement "$here/requirements.txt"
  cp "$here/requirements.txt" "$out/venv/" # only now: half an installation is none
fi

rm -f "$out"/{summary.txt,history.csv,report.html,chart.*} # what is there afterwards is of this run
start_server "$out"
status=0
# shellcheck disable=SC2046
$(pinned 1) "$out/venv/bin/locust" --locustfile "$here/locustfile.py" --headless --only-summary \
  --host "http://$address" --users "$users" --spawn-rate 100 --run-time "$duration" --publish-rate "$rate" \
  --server-pid "$server" --figures "$out" --csv "$out/locust" --csv-full-history --html "$out/report.html" || status=$?
stop_server
[[ ! -e $out/summary.txt ]] || "$out/venv/bin/python" "$here/report.py" "$out"
exit "$status"
