#!/usr/bin/env bash
# Builds every image that compose.yaml names, on a machine that reaches no image registry and no model hub.
#
#   docker/airgap/build-images.sh              # as root (debootstrap); seconds when nothing changed
#
# What it needs: a Docker engine (install-engine.sh), a Debian mirror (apt's own; debootstrap's default on Ubuntu), a
# Python package index. STEP is put before each line.
# The machine's own CA certificates go into the bases, so the project's Dockerfiles build unchanged behind a proxy.
set -euo pipefail
cd "$(dirname "$0")/../.."

readonly RECIPES=docker/airgap
# shellcheck source=docker/airgap/apt-mirror.sh
. "$RECIPES/apt-mirror.sh"

die() {
  printf 'build-images: %s\n' "$1" >&2
  exit 1
}

# stage NAME COMMAND...: run it quietly, print how long it took; one line and the path of its log where it fails.
stage() {
  local name=$1 log start=$SECONDS code
  shift
  log=$(mktemp -t headroom-image.XXXXXX)
  # Not `if "$@"`: there bash ignores `set -e` in the whole function, and half an image would be kept.
  set +e
  (
    set -e
    "$@"
  ) >"$log" 2>&1
  code=$?
  set -e
  [ "$code" -eq 0 ] || die "$name failed after $((SECONDS - start)) s, see $log: $(tail -n 1 "$log")"
  rm -f "$log"
  printf '%s%-40s %4d s\n' "${STEP:-}" "$name" $((SECONDS - start))
}

# Nothing on Ubuntu, whose mirror has no Debian: debootstrap then takes Debian's own.
debian_mirror() { grep -q '^ID=ubuntu' /etc/os-release || apt_source URIs; }

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

# carries IMAGE COMMAND...: version that the program in an image says it has.
carries() {
  local image=$1
  shift
  docker run --rm --network none --entrypoint "$1" "$image" "${@:2}" 2>&1 |
    awk '!found && match($0, /[0-9]+\.[0-9]+\.[0-9]+/) {print substr($0, RSTART, RLENGTH); found = 1} END {exit !found}'
}

# stand_in IMAGE RECIPE COMMAND...: builds it and says where its program is another version than the tag. The label
# headroom.carries tells scripts/doctor; the program's own word for its version is the one that counts.
stand_in() {
  local image=$1 recipe=$2 version wanted=${1##*:}
  shift 2
  stage "$image" build "$image" "$RECIPES/$recipe"
  version=$(carries "$image" "$@") || die "$image: its program says no version"
  printf 'FROM %s\nLABEL headroom.carries=%s\n' "$image" "$version" | docker build --quiet --tag "$image" - >/dev/null
  [ "$version" = "${wanted#v}" ] || printf '%s  stands in with %s, the newest that the packages have\n' "${STEP:-}" "$version"
}

docker info >/dev/null 2>&1 || die "no Docker engine answers: run $RECIPES/install-engine.sh"
if ! command -v debootstrap >/dev/null && [ "$(id -u)" = 0 ]; then
  stage "debootstrap (package)" sh -c \
    'apt-get update -qq && apt-get install -y -qq --no-install-recommends debootstrap debian-archive-keyring'
fi

# The tags are those of the Compose files, so that a raised pin there cannot leave a stale stand-in behind.
tags=$(docker compose -f compose.yaml -f compose.airgap.yaml --profile '*' config |
  awk '/^  [a-z-]+:$/ {name = $1} /^    image: / {print name, $2}')
image_of() { sed -n "s/^$1: //p" <<<"$tags"; }

# python_base SUITE VERSION
python_base() {
  [ "$(id -u)" = 0 ] || docker image inspect "debian:$1-slim" >/dev/null 2>&1 ||
    die "debootstrap needs root: run 'sudo docker/airgap/build-images.sh' once"
  stage "debian:$1-slim" debian_base "$1"
  stage "python:$2-slim-$1" build "python:$2-slim-$1" "$RECIPES/python" --build-arg "SUITE=$1"
}

engine_and_hub() {
  stage "$vllm" build "$vllm" "$RECIPES/vllm" --build-context "wheels=$(wheel_folder)"
  stage "$hub" build "$hub" "$RECIPES/hub"
}

vllm=$(image_of vllm)
hub=$(image_of hub)
prometheus=$(image_of prometheus)
alertmanager=$(image_of alertmanager)
node_exporter=$(image_of node-exporter)
caddy=$(sed -n 's/^FROM \(caddy:.*\)/\1/p' docker/edge/Dockerfile)

# What still runs when another image has failed.
trap 'kill $(jobs -p) 2>/dev/null || true' EXIT
# Mostly waiting for mirrors, so two at a time: the engine's image takes as long as all others.
python_base bookworm 3.11 &
bookworm=$!
python_base trixie 3.13
wait "$bookworm" || exit 1
engine_and_hub &
engine=$!
stand_in "$prometheus" prometheus prometheus --version
stand_in "$alertmanager" alertmanager alertmanager --version
stand_in "$node_exporter" node-exporter node_exporter --version
stand_in "$caddy" caddy caddy version
wait "$engine" || exit 1
