#!/bin/sh
# Starts Grafana without its well-known default password. On loopback everybody may view, and without
# GRAFANA_ADMIN_PASSWORD there is no admin. Where other machines reach it, everybody has to log in. With CHECK_ONLY, for
# scripts/doctor, it ends after its checks.
set -eu

die() {
  echo "headroom: $1" >&2
  exit 2
}

password=${GF_SECURITY_ADMIN_PASSWORD:-} file=${GRAFANA_ADMIN_PASSWORD_FILE:-/run/secrets/grafana_admin_password}
if [ -e "$file" ]; then
  [ -r "$file" ] || die "GRAFANA_ADMIN_PASSWORD_FILE cannot be read: let user $(id -u) read it"
  from_file=$(tr -d '\r' <"$file")
  [ -z "$from_file" ] || [ -z "$password" ] ||
    die "GRAFANA_ADMIN_PASSWORD and GRAFANA_ADMIN_PASSWORD_FILE are both set: leave one of the two out"
  password=$from_file$password
fi

case ${BIND_ADDRESS:-} in
  '' | 127.* | ::1 | '[::1]') export GF_AUTH_ANONYMOUS_ENABLED=true ;;
  *)
    export GF_AUTH_ANONYMOUS_ENABLED=false
    [ -n "$password" ] ||
      die "BIND_ADDRESS=$BIND_ADDRESS lets others reach Grafana and GRAFANA_ADMIN_PASSWORD is empty: set one in .env, or BIND_ADDRESS=127.0.0.1"
    ;;
esac

[ -z "${CHECK_ONLY:-}" ] || exit 0
data=${GF_PATHS_DATA:-/var/lib/grafana}
[ ! -d "$data" ] || [ -w "$data" ] ||
  die "the volume grafana-data belongs to another user than $(id -u): run docker compose run --rm --no-deps --user 0 --cap-add CHOWN --cap-add DAC_OVERRIDE --entrypoint chown grafana -R $(id -u):$(id -g) $data"

if [ -n "$password" ]; then
  export GF_SECURITY_ADMIN_PASSWORD="$password"
else
  unset GF_SECURITY_ADMIN_PASSWORD
  export GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION=true
  export GF_AUTH_DISABLE_LOGIN_FORM=true
fi
exec /run.sh "$@"
