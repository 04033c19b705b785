#!/usr/bin/env bash
# Builds every image that compose.yaml names, on a machine that reaches no image registry and no model hub.
#
#   docker/airgap/build-images.sh              # as root (debootstrap); seconds when nothing changed
#
# What it needs: a Docker engine (install-engine.sh), the Debian mirror that apt uses, a Python package index.
# The machine's own CA certificates go into the bases, so the project's Dockerfiles build unchanged behind a proxy.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly RECIPES=docker/airgap

die() {
  printf 'build-images: %s\n' "$1" >&2
  exit 1
}

# stage NAME COMMAND...: run it quietly, say how long it took; show its output only when it fails.
stage() {
  local name=$1 log start=$SECONDS code
  shift
  log=$(mktemp)
  printf '%-46s ' "$name"
  # Not `if "$@"`: there bash ignores `set -e` in the whole function, and half an image would be kept.
  set +e
  (
    set -e
    "$@"
  ) >"$log" 2>&1
  code=$?
  set -e
  if [ "$code" -eq 0 ]; then
    printf '%4d s\n' $((SECONDS - start))
    rm -f "$log"
  else
    printf 'FAILED after %d s\n' $((SECONDS - start))
    cat "$log" >&2
    rm -f "$log"
    exit 1
  fi
}

# The mirror that this machine's apt uses: no address is written in the repository.
debian_mirror() {
  local uri
  uri=$(sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\) .*/\2/p' \
    /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2>/dev/null | head -n 1)
  [ -n "$uri" ] || die "apt has no Debian mirror: add one to /etc/apt/sources.list.d/debian.sources"
  printf '%s\n' "$uri"
}

ca_bundle() { printf '%s\n' "${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}"; }

# debian_base SUITE: a real Debian, from its packages, under the name of the official slim image.
debian_base() {
  local suite=$1 name=debian:$1-slim recipe root
  # What the image depends on: how this function makes it, and the certificates.
  recipe=$({ declare -f debian_base; cat "$(ca_bundle)"; } | sha256sum | cut -c1-16)
  [ "$(docker image inspect -f '{{index .Config.Labels "headroom.recipe"}}' "$name" 2>/dev/null)" != "$recipe" ] || return 0
  root=$(mktemp -d)
  # shellcheck disable=SC2064  # expand now: the path is local to this function
  trap "rm -rf '$root'" EXIT
  debootstrap --variant=minbase --include=ca-certificates "$suite" "$root" "$(debian_mirror)"
  # update-ca-certificates wants one certificate a file.
  mkdir -p "$root/usr/local/share/ca-certificates"
  awk -v dir="$root/usr/local/share/ca-certificates" \
    '/BEGIN CERTIFICATE/ {n++} n {print > sprintf("%s/machine-%03d.crt", dir, n)}' "$(ca_bundle)"
  chroot "$root" update-ca-certificates
  tar -C "$root" --exclude=./var/cache/apt/archives --exclude=./var/lib/apt/lists --exclude=./dev -c . |
    docker import --change "LABEL headroom.recipe=$recipe" --change 'CMD ["bash"]' \
      --change 'ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt' \
      --change 'ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt' \
      --change 'ENV REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt' - "$name"
  rm -rf "$root"
  trap - EXIT
}

# The folder of wheels that pip is told to look in beside the index, empty where there is none.
wheel_folder() {
  local folder=${PIP_FIND_LINKS:-}
  if [ -d "$folder" ]; then printf '%s\n' "$folder"; else printf '%s\n' "$RECIPES/no-wheels"; fi
}

# build NAME FOLDER [OPTION...]
build() {
  local name=$1 folder=$2
  shift 2
  docker build --quiet --tag "$name" "$@" "$folder"
}

docker info >/dev/null 2>&1 || die "no Docker engine answers: run $RECIPES/install-engine.sh"
if ! command -v debootstrap >/dev/null; then
  [ "$(id -u)" = 0 ] || die "debootstrap is missing: apt-get install debootstrap"
  stage "debootstrap (package)" sh -c 'apt-get update -qq && apt-get install -y -qq --no-install-recommends debootstrap'
fi

stage debian:bookworm-slim debian_base bookworm
stage debian:trixie-slim debian_base trixie
stage python:3.11-slim-bookworm build python:3.11-slim-bookworm "$RECIPES/python" --build-arg SUITE=bookworm
stage python:3.13-slim-trixie build python:3.13-slim-trixie "$RECIPES/python" --build-arg SUITE=trixie

# image_of SERVICE: the tag in the Compose files, so that a raised pin there cannot leave a stale stand-in behind.
image_of() {
  docker compose -f compose.yaml -f compose.airgap.yaml --profile '*' config --format json |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["services"][sys.argv[1]]["image"])' "$1"
}

vllm=$(image_of vllm)
prometheus=$(image_of prometheus)
alertmanager=$(image_of alertmanager)
node_exporter=$(image_of node-exporter)
caddy=$(sed -n 's/^FROM \(caddy:.*\)/\1/p' docker/edge/Dockerfile)
hub=$(image_of hub)
stage "$vllm" build "$vllm" "$RECIPES/vllm" --build-context "wheels=$(wheel_folder)"
stage "$prometheus" build "$prometheus" "$RECIPES/prometheus" --build-arg "PROMETHEUS_VERSION=${prometheus##*:v}"
stage "$alertmanager" build "$alertmanager" "$RECIPES/alertmanager" --build-arg "ALERTMANAGER_VERSION=${alertmanager##*:v}"
stage "$node_exporter" build "$node_exporter" "$RECIPES/node-exporter" --build-arg "NODE_EXPORTER_VERSION=${node_exporter##*:v}"
stage "$caddy" build "$caddy" "$RECIPES/caddy" --build-arg "CADDY_VERSION=${caddy##*:}"
stage "$hub" build "$hub" "$RECIPES/hub"
