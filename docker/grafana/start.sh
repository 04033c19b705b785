#!/bin/sh
# Starts Grafana without its well-known default password: with no GRAFANA_ADMIN_PASSWORD there is no admin at all.
if [ -z "$GF_SECURITY_ADMIN_PASSWORD" ]; then
  unset GF_SECURITY_ADMIN_PASSWORD
  export GF_SECURITY_DISABLE_INITIAL_ADMIN_CREATION=true
  export GF_AUTH_DISABLE_LOGIN_FORM=true
fi
exec /run.sh "$@"
