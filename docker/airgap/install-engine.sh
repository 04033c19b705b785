#!/usr/bin/env bash
# Installs and starts a Docker engine on a Debian machine that has none.
#
#   docker/airgap/install-engine.sh            # as root; a no-op once the engine answers
#
# Debian 12's own engine (20.10) is too old: compose.yaml needs 25 or newer for `start_interval`.
# Debian 13's engine runs on Debian 12, so it is taken from there, pinned so that nothing else is.
set -euo pipefail

readonly SUITE=trixie
readonly PACKAGES=(docker.io docker-cli docker-compose docker-buildx containerd)
readonly MIN_ENGINE=25
readonly LOG=/var/log/headroom-dockerd.log
readonly START_TIMEOUT_S=60

die() {
  printf 'install-engine: %s\n' "$1" >&2
  exit 1
}

engine_version() { docker version --format '{{.Server.Version}}' 2>/dev/null; }

engine_answers() {
  local version
  version=$(engine_version) || return 1
  [ "${version%%.*}" -ge "$MIN_ENGINE" ] ||
    die "the Docker engine is $version, $MIN_ENGINE or newer is needed: upgrade it, or stop it and run this again"
}

# Debian 13 as a second source beside the machine's own: same mirror, same key.
add_suite() {
  local own=/etc/apt/sources.list.d/debian.sources uri key
  # shellcheck source=/dev/null
  . /etc/os-release
  [ "${VERSION_CODENAME:-}" != "$SUITE" ] || return 0
  [ -r "$own" ] || die "$own is missing: install Docker Engine $MIN_ENGINE or newer by hand"
  uri=$(sed -n 's/^URIs: *//p' "$own" | head -n 1)
  key=$(sed -n 's/^Signed-By: *//p' "$own" | head -n 1)
  printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' "$uri" "$SUITE" "$key" \
    >"/etc/apt/sources.list.d/headroom-$SUITE.sources"
  {
    printf 'Package: *\nPin: release n=%s\nPin-Priority: 100\n\n' "$SUITE"
    printf 'Package: %s\nPin: release n=%s\nPin-Priority: 600\n' "${PACKAGES[*]}" "$SUITE"
  } >"/etc/apt/preferences.d/headroom-$SUITE"
}

install_packages() {
  # The init scripts must not start a second engine; this script starts it and waits for it.
  local policy=/usr/sbin/policy-rc.d
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    # shellcheck disable=SC2064  # expand now: the path is local to this function
    trap "rm -f '$policy'" EXIT
  fi
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "${PACKAGES[@]}" iptables ca-certificates >/dev/null
}

start_engine() {
  local pid deadline=$((SECONDS + START_TIMEOUT_S))
  setsid dockerd >>"$LOG" 2>&1 </dev/null &
  pid=$!
  until engine_answers; do
    kill -0 "$pid" 2>/dev/null || die "dockerd ended while starting; see $LOG: $(tail -n 1 "$LOG")"
    [ "$SECONDS" -lt "$deadline" ] || die "dockerd did not answer within ${START_TIMEOUT_S} s; see $LOG"
    sleep 0.2
  done
}

if ! engine_answers; then
  [ "$(id -u)" = 0 ] || die "no Docker engine answers: start it, or run this as root to install one"
  if ! command -v dockerd >/dev/null || ! docker compose version >/dev/null 2>&1; then
    add_suite
    install_packages
  fi
  start_engine
fi
printf 'Docker Engine %s, Compose %s\n' "$(engine_version)" "$(docker compose version --short)"
