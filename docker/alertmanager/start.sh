#!/bin/sh
# Starts Alertmanager with the webhook of .env in a file: its configuration cannot read the environment, and the URL
# may hold a secret, which a command line would show. With CHECK_ONLY, for scripts/doctor, it ends after its checks.
set -eu
case ${ALERT_WEBHOOK_URL:-} in
  http://?* | https://?*) ;;
  '') echo "headroom: ALERT_WEBHOOK_URL is empty: set in .env where alerts go, for example a chat's webhook" >&2 && exit 2 ;;
  *) echo "headroom: ALERT_WEBHOOK_URL does not begin with http:// or https://: correct it in .env" >&2 && exit 2 ;;
esac
[ -z "${CHECK_ONLY:-}" ] || exit 0
for argument; do
  data=${argument#--storage.path=}
  [ "$data" = "$argument" ] || [ ! -d "$data" ] || [ -w "$data" ] || {
    echo "headroom: the volume alertmanager-data belongs to another user than $(id -u): run docker compose run --rm --no-deps --user 0 --cap-add CHOWN --cap-add DAC_OVERRIDE --entrypoint chown alertmanager -R $(id -u):$(id -g) $data" >&2
    exit 2
  }
done
umask 077
printf %s "$ALERT_WEBHOOK_URL" >/tmp/webhook-url
unset ALERT_WEBHOOK_URL
# Not 0 when stopped: after a reboot Docker starts `on-failure` containers again only if they ended in failure.
trap 'kill $!; wait $!; exit 143' TERM INT
/bin/alertmanager "$@" &
wait $!
