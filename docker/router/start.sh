#!/bin/sh
# Starts the router; exits with its code, or with 143 when stopped.
set -eu
# Not 0 when stopped: after a reboot Docker starts `on-failure` containers again only if they ended in failure.
trap 'kill $!; wait $!; exit 143' TERM INT
vllm-router "$@" &
wait $!
