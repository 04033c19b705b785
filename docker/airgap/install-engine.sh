#!/usr/bin/env bash
# Installs and starts a Docker engine on a Debian or Ubuntu machine that has none.
#
#   docker/airgap/install-engine.sh            # as root; a no-op once the engine answers
#
# Debian 12's own engine (20.10) is too old: compose.yaml needs 25 or newer for `start_interval`.
# Debian 13's engine runs on Debian 12, so it is taken from there, pinned so that nothing else is.
set -euo pipefail
# shellcheck source=docker/airgap/apt-mirror.sh
. "$(dirname "$0")/apt-mirror.sh"

readonly SUITE=trixie
readonly MIN_ENGINE=25 MIN_COMPOSE=2.24.4
readonly LOG=/var/log/headroom-dockerd.log
readonly START_TIMEOUT_S=60
readonly BY_HAND="install Docker Engine $MIN_ENGINE or newer with its Compose plugin by hand, then run this again"

die() {
  printf 'install-engine: %s\n' "$1" >&2
  exit 1
}

engine_version() { docker version --format '{{.Server.Version}}' 2>/dev/null; }

compose_version() { docker compose version --short 2>/dev/null; }

engine_answers() {
  local version
  version=$(engine_version) || return 1
  [ "${version%%.*}" -ge "$MIN_ENGINE" ] ||
    die "the Docker engine is $version, $MIN_ENGINE or newer is needed: upgrade it, or stop it and run this again"
}

# Debian 13 as a second source beside the machine's own: same mirror, same key.
add_suite() {
  local uri key
  uri=$(apt_source URIs)
  key=$(apt_source Signed-By)
  [ -n "$uri" ] || die "apt has no Debian mirror in /etc/apt: $BY_HAND"
  printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: %s\n' \
    "$uri" "$SUITE" "${key:-/usr/share/keyrings/debian-archive-keyring.gpg}" >"/etc/apt/sources.list.d/headroom-$SUITE.sources"
  {
    printf 'Package: *\nPin: release n=%s\nPin-Priority: 100\n\n' "$SUITE"
    printf 'Package: %s\nPin: release n=%s\nPin-Priority: 600\n' "$*" "$SUITE"
  } >"/etc/apt/preferences.d/headroom-$SUITE"
}

install_packages() {
  local policy=/usr/sbin/policy-rc.d packages=(docker.io docker-cli docker-compose docker-buildx containerd)
  # shellcheck source=/dev/null
  . /etc/os-release
  case $ID in
    ubuntu) packages=(docker.io docker-compose-v2 docker-buildx containerd) ;;
    debian) [ "${VERSION_CODENAME:-}" != bookworm ] || add_suite "${packages[@]}" ;;
    *) die "${PRETTY_NAME:-$ID} is neither Debian nor Ubuntu: $BY_HAND" ;;
  esac
  # Without systemd, the init scripts must not start an engine; this script starts it and waits for it.
  if [ ! -d /run/systemd/system ] && [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    # shellcheck disable=SC2064  # expand now: the path is local to this function
    trap "rm -f '$policy'" EXIT
  fi
  apt-get update -qq || die "apt-get update failed: see the lines above"
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "${packages[@]}" iptables ca-certificates >/dev/null || die "apt-get install failed: $BY_HAND"
}

start_engine() {
  local pid=$$ deadline=$((SECONDS + START_TIMEOUT_S))
  if [ -d /run/systemd/system ]; then
    systemctl enable --now docker.service || die "systemd did not start Docker; see journalctl -u docker"
  else
    setsid dockerd >>"$LOG" 2>&1 </dev/null &
    pid=$!
  fi
  until engine_answers; do
    kill -0 "$pid" 2>/dev/null || die "dockerd ended while starting; see $LOG: $(tail -n 1 "$LOG")"
    [ "$SECONDS" -lt "$deadline" ] || die "dockerd did not answer within ${START_TIMEOUT_S} s; see $LOG"
    sleep 0.2
  done
}

if ! engine_answers || ! compose_version >/dev/null; then
  if [ "$(id -u)" != 0 ]; then
    [[ $(docker version 2>&1) != *"permission denied"* ]] ||
      die "you may not use Docker: run 'sudo usermod -aG docker $(id -un)', then log in again"
    die "no Docker engine with Compose answers: start it, or install one with 'sudo docker/airgap/install-engine.sh'"
  fi
  if ! command -v dockerd >/dev/null || ! compose_version >/dev/null; then install_packages; fi
  engine_answers || start_engine
fi
compose=$(compose_version)
printf '%s\n%s\n' "$MIN_COMPOSE" "${compose#v}" | sort -CV ||
  die "Docker Compose is $compose, $MIN_COMPOSE or newer is needed: upgrade it"
printf 'Docker Engine %s, Compose %s\n' "$(engine_version)" "$compose"
