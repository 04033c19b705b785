#!/bin/sh
# Starts Prometheus with the SLO of .env as metrics for rules, alerts and dashboards: rule files cannot read the
# environment. Arguments are passed to Prometheus. With CHECK_ONLY, for scripts/doctor, it ends after its checks.
set -eu

die() {
  echo "headroom: $1" >&2
  exit 2
}

# number NAME VALUE HINT: exits unless VALUE is a plain decimal number above 0.
number() {
  case $2 in
    '' | *[!0-9.]* | *.*.* | .* | *.) die "$1=$2 is not a number above 0: $3" ;;
    *[1-9]*) ;;
    *) die "$1=$2 is not a number above 0: $3" ;;
  esac
}

ttft=${SLO_TTFT_MS:-500} tpot=${SLO_TPOT_MS:-50} percentile=${SLO_PERCENTILE:-95}
number SLO_TTFT_MS "$ttft" "give milliseconds, for example 500"
number SLO_TPOT_MS "$tpot" "give milliseconds, for example 50"
number SLO_PERCENTILE "$percentile" "give the share of requests that must meet the SLO, for example 95"
case $percentile in
  [5-9][0-9] | [5-9][0-9].*) ;;
  *) die "SLO_PERCENTILE=$percentile is not from 50 to below 100: give for example 95" ;;
esac

# fits VALUE PATTERN: whether all of VALUE matches an extended regular expression.
fits() { printf '%s\n' "$1" | grep -Eqx "$2"; }

# Prometheus answers a wrong one with 200 lines of help, at every start.
data=
for argument; do
  value=${argument#*=}
  case $argument in
    --storage.tsdb.path=*) data=$value ;;
    --storage.tsdb.retention.time=*)
      fits "$value" '0|([0-9]{1,2}y)?([0-9]{1,4}w)?([0-9]{1,5}d)?([0-9]{1,6}h)?([0-9]{1,7}m)?([0-9]{1,9}s)?([0-9]{1,9}ms)?' && [ -n "$value" ] ||
        die "PROMETHEUS_RETENTION_TIME=$value is no duration: give whole numbers with a unit (y, w, d, h, m, s), for example 30d"
      ;;
    --storage.tsdb.retention.size=*)
      fits "$value" '0|[0-9]{1,5}(\.[0-9]{1,3})?([KMGTP]i?)?B' ||
        die "PROMETHEUS_RETENTION_SIZE=$value is no size: give a number with a unit (B, KB, MB, GB, TB), for example 5GB"
      ;;
  esac
done
[ -z "${CHECK_ONLY:-}" ] || exit 0
[ ! -d "$data" ] || [ -w "$data" ] ||
  die "the volume prometheus-data belongs to another user than $(id -u): run docker compose run --rm --no-deps --user 0 --cap-add CHOWN --cap-add DAC_OVERRIDE --entrypoint chown prometheus -R $(id -u):$(id -g) $data"

# `le` is the SLO as a bucket edge in Prometheus' spelling: a whole number of seconds ends in .0.
edge() { echo "label_replace(count_values(\"le\", vector($1 / 1000)), \"le\", \"\$1.0\", \"le\", \"([0-9]+)\") * $1 / 1000"; }

mkdir -p /tmp/rules
cat >/tmp/rules/slo.yaml <<EOF
groups:
  - name: slo
    rules:
      - record: headroom:slo_ttft:seconds
        expr: '$(edge "$ttft")'
      - record: headroom:slo_tpot:seconds
        expr: '$(edge "$tpot")'
      - record: headroom:slo_objective:ratio
        expr: vector($percentile / 100)
EOF
checked=$(promtool check rules /tmp/rules/slo.yaml 2>&1) || die "the rules of the SLO are not valid: $checked"
exec /bin/prometheus "$@"
