# shellcheck shell=bash
# Sourced by the scripts that need a RayFlux of their own; leaves $server (its process) and $address (host:port).

# pinned CPU: the words that keep a command to one processor, so that server and generator do not take turns; none where
# that cannot be had.
pinned() {
  if taskset -c "$1" true 2>/dev/null; then echo "taskset -c $1"; fi
}

# start_server FOLDER: builds RayFlux, starts it on a free port and returns when it says that it is ready.
start_server() {
  local line
  "${GO:-go}" build -o "$1/rayflux" .
  rm -f "$1/ready"
  mkfifo "$1/ready"
  # shellcheck disable=SC2046 # words on purpose
  $(pinned 0) "$1/rayflux" node --listen 127.0.0.1:0 --admin 127.0.0.1:0 2>"$1/ready" &
  server=$!
  trap stop_server EXIT
  exec 3<"$1/ready"
  rm "$1/ready" # both ends hold it now
  while IFS= read -r -t 30 line <&3; do
    echo "$line"
    if [[ $line =~ msg=ready\ listen=([^ ]+) ]]; then
      address=${BASH_REMATCH[1]}
      cat <&3 & # what else it has to say: a pipe that nobody reads would block it
      reader=$!
      exec 3<&-
      return
    fi
  done
  echo "RayFlux did not get ready" >&2
  exit 1
}

stop_server() {
  trap - EXIT
  kill "$server" 2>/dev/null || true
  wait "$server" || echo "RayFlux ended with status $?" >&2
  wait ${reader:+"$reader"}
}
