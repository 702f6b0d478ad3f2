#!/usr/bin/env bash
# Runs websocket.js, then http.js, against a RayFlux started for them. USERS, DURATION (of each, in seconds), RATE
# (publishes per second) and SCRIPTS are taken from the environment. Ends with k6's status: 99 when a threshold was crossed.
set -euo pipefail

version=v1.8.1
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
out=$PWD/.cache/k6
k6=$out/bin/k6
# shellcheck source=../locust/server.sh
. "$here/../locust/server.sh"

mkdir -p "$out"
if [[ $("$k6" version 2>/dev/null) != "k6 $version "* ]]; then
  GOBIN=$out/bin "${GO:-go}" install "go.k6.io/k6@$version"
fi

# ticks PID: the CPU ticks of a process, and those of the whole machine.
ticks() {
  local process machine
  read -r -a process <"/proc/$1/stat"
  read -r -a machine </proc/stat
  echo "$((process[13] + process[14]))" \
    "$((machine[1] + machine[2] + machine[3] + machine[6] + machine[7] + machine[8]))" # busy: neither idle nor waiting
}

# measure SCRIPT: runs it, and adds to its report who used the processors.
measure() {
  local name=$1 status=0 before after
  rm -f "$out/$name".* # what is there afterwards is of this run
  before=$(ticks "$server")
  # At its default, k6's garbage collector runs twice a second here, and stops it for 20 ms each time where it has one
  # processor: that would be most of the p95. The price is memory, about a gigabyte for 200 users.
  # shellcheck disable=SC2046
  { TIMEFORMAT='%R %U %S'; time GOGC=1000 SERVER=$address REPORTS=$out \
    K6_WEB_DASHBOARD=true K6_WEB_DASHBOARD_PORT=-1 K6_WEB_DASHBOARD_PERIOD=1s K6_WEB_DASHBOARD_RECORD=$out/$name.ndjson \
    $(pinned 1) "$k6" run --quiet --no-usage-report "$here/$name.js" 2>&3; } 3>&2 2>"$out/time" || status=$?
  after=$(ticks "$server")
  # shellcheck disable=SC2086
  awk -v hz="$(getconf CLK_TCK)" -v b="$before" -v a="$after" '{
    split(b, before); split(a, after)
    k6 = 100 * ($2 + $3) / $1; server = 100 * (after[1] - before[1]) / hz / $1
    others = 100 * (after[2] - before[2]) / hz / $1 - k6 - server
    printf "CPU, percent of one processor: k6 %.0f, server %.0f, others %.0f\n", k6, server, (others > 0 ? others : 0)
    if (k6 > 90) print "k6 was above 90 %: it was the limit, and rates and latencies are its own, not those of the server"
    if (others > 20) print "Others were busy on this machine: latencies are theirs too, so measure again when it is quiet"
  }' "$out/time" | tee -a "$out/$name.txt"
  RECORD=$out/$name.ndjson CHART=$out/$name.svg TITLE="RayFlux under k6, $name.js" \
    "$k6" run --quiet --no-usage-report "$here/chart.js"
  echo "$out/$name.txt $out/$name.json $out/$name.svg"
  return "$status"
}

start_server "$out"
worst=0
for script in ${SCRIPTS:-websocket http}; do
  measure "$script" || worst=$?
done
stop_server
exit "$worst"
