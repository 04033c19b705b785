#!/bin/sh
# Starts the router, and ends as it does unless it is stopped.
set -eu
# Not 0 when stopped: after a reboot Docker starts `on-failure` containers again only if they ended in failure.
trap 'kill $!; wait $!; exit 143' TERM INT
vllm-router "$@" &
wait $!
