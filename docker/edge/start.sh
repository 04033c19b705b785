#!/bin/sh
# Starts Caddy with the user's password, from its file or variable, hashed here so that neither the process list nor
# Caddy's configuration contains it. With CHECK_ONLY, for scripts/doctor, it ends after its checks.
set -eu

die() {
  echo "headroom: $1" >&2
  exit 2
}

[ -n "${EDGE_DOMAIN:-}" ] ||
  die "EDGE_DOMAIN is empty: set in .env the name of this box, for example llm.example.org; grafana.NAME, prometheus.NAME and locust.NAME must lead here too"
case $EDGE_DOMAIN in
  *[!A-Za-z0-9.-]* | .* | *.) die "EDGE_DOMAIN=$EDGE_DOMAIN is no host name: give for example llm.example.org, without https:// and port" ;;
esac
case ${EDGE_TLS:-internal} in
  internal | ?*@?*.?*) ;;
  *) die "EDGE_TLS=$EDGE_TLS is unknown: use internal, or your e-mail address for a certificate of a public authority" ;;
esac

case ${EDGE_USER:-headroom} in
  *[!A-Za-z0-9._@-]*) die "EDGE_USER=$EDGE_USER is no name for a login: use letters, digits and ._@-" ;;
esac
printf '%s\n' "${EDGE_MAX_BODY:-10MB}" | grep -Eqix '[0-9]+(\.[0-9]+)? ?([kmgt]i?)?b?' ||
  die "EDGE_MAX_BODY=$EDGE_MAX_BODY is no size: give for example 10MB"

password=${EDGE_PASSWORD:-} file=${EDGE_PASSWORD_FILE:-/run/secrets/edge_password}
if [ -e "$file" ]; then
  [ -r "$file" ] || die "EDGE_PASSWORD_FILE cannot be read: let user $(id -u) read it"
  from_file=$(tr -d '\r' <"$file")
  [ -z "$from_file" ] || [ -z "$password" ] || die "EDGE_PASSWORD and EDGE_PASSWORD_FILE are both set: leave one of the two out"
  password=$from_file$password
fi
[ ${#password} -ge 12 ] ||
  die "EDGE_PASSWORD has ${#password} characters, 12 or more are needed: set one in .env, made for example with openssl rand -hex 12"

[ -z "${CHECK_ONLY:-}" ] || exit 0
[ ! -d /data ] || [ -w /data ] ||
  die "the volume edge-data belongs to another user than $(id -u): run docker compose run --rm --no-deps --user 0 --cap-add CHOWN --cap-add DAC_OVERRIDE --entrypoint chown edge -R $(id -u):$(id -g) /data"

EDGE_PASSWORD_HASH=$(printf '%s\n' "$password" | caddy hash-password) || die "the password cannot be hashed"
export EDGE_PASSWORD_HASH
unset EDGE_PASSWORD password from_file
# Not 0 when stopped: after a reboot Docker starts `on-failure` containers again only if they ended in failure.
trap 'kill $!; wait $!; exit 143' TERM INT
caddy run --config /etc/caddy/Caddyfile --adapter caddyfile &
wait $!
