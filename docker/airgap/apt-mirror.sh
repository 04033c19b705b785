# shellcheck shell=bash
# Sourced: where this machine's apt gets its packages, so that no address is written in the repository.

# apt_source FIELD: `URIs` or `Signed-By` of the first source, from its deb822 file or from a line of the old form.
apt_source() {
  local deb822 old
  deb822=$(sed -n "s/^$1: *//p" /etc/apt/sources.list.d/{debian,ubuntu}.sources 2>/dev/null | head -n 1)
  if [ -z "$deb822" ]; then
    old=$(grep -hE '^deb .*https?://' /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null | head -n 1)
    case $1 in
      URIs) deb822=$(grep -oE 'https?://[^ ]+' <<<"$old" || true) ;;
      Signed-By) deb822=$(sed -n 's/^deb \[.*signed-by=\([^] ]*\).*/\1/p' <<<"$old") ;;
    esac
  fi
  # Cloud images name a file that lists mirrors.
  case $deb822 in mirror+file:*) deb822=$(grep -oEm 1 'https?://[^[:space:]]+' "${deb822#mirror+file:}") ;; esac
  printf '%s\n' "${deb822%% *}"
}
