#!/usr/bin/env bash
# Starts NVIDIA's exporter of the cards' metrics, and stays where that ends: `docker compose up --wait` fails with a service
# that ends, and the engine does not need this one. DCGM does not know every card (WSL2, DGX Spark). Bash alone: the image
# has neither sleep nor coreutils.
set -u
pause_s=${RETRY_S:-300}
child=

stop() {
  [ -z "$child" ] || kill "$child" 2>/dev/null
  wait
  # Not 0: after a reboot Docker would not start it again.
  exit 143
}
trap stop TERM INT

while true; do
  dcgm-exporter-entrypoint.sh "$@" &
  child=$!
  wait "$child"
  code=$?
  child=
  echo "headroom: the exporter ended with $code, most often for a card that DCGM does not know: no metrics of the cards; tries again in $pause_s s. Without it: docs/platforms.md"
  # A wait that a signal ends, on a pipe that nobody writes to.
  read -rt "$pause_s" <> <(:)
done
