#!/bin/sh
# Starts the router; exits with its code, or with 143 when stopped. With CHECK_ONLY, for scripts/doctor, it ends after its
# checks.
set -eu

die() {
  echo "headroom: $1" >&2
  exit 2
}

for argument; do
  value=${argument#*=}
  case $argument in
    --policy=cache_aware | --policy=round_robin | --policy=power_of_two | --policy=random | --policy=consistent_hash) ;;
    --policy=*) die "ROUTER_POLICY=$value is unknown: use cache_aware, round_robin, power_of_two, random or consistent_hash" ;;
    --retry-max-retries=[1-9] | --retry-max-retries=[1-9][0-9]) ;;
    --retry-max-retries=*) die "ROUTER_ATTEMPTS=$value is no number from 1 to 99: the default is 1" ;;
  esac
done
[ -z "${CHECK_ONLY:-}" ] || exit 0
# Not 0 when stopped: after a reboot Docker starts `on-failure` containers again only if they ended in failure.
trap 'kill $!; wait $!; exit 143' TERM INT
vllm-router "$@" &
wait $!
