#!/usr/bin/env bash
# usage: install_packages.sh LIST
# Installs the Debian packages that LIST names (one a line, # comments) and that are missing, without starting the services
# that some of them bring. A word behind a package is a command: where there is one already, from wherever, it serves. Without root or apt it names what is missing and goes on: those tests are skipped.
set -eu
missing=()
while read -r package command _; do
  [ -n "$package" ] || continue
  if [ -n "$command" ] && command -v "$command" >/dev/null; then continue; fi
  dpkg-query --show --showformat='${Status}\n' "$package" 2>/dev/null | grep -q '^install ok installed' || missing+=("$package")
done < <(sed 's/#.*//' "$1")
[ "${#missing[@]}" -gt 0 ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "not installed, tests that need them are skipped: ${missing[*]} (as root, make test installs them with apt-get)"
  exit 0
fi

# Debian starts a service as soon as its package is installed; policy-rc.d is how to say no (invoke-rc.d(8)).
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  trap 'rm -f "$policy"' EXIT
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq --yes --no-install-recommends "${missing[@]}" </dev/null
# Nor at the next boot.
if [ -d /run/systemd/system ]; then
  for package in "${missing[@]}"; do
    for unit in $(dpkg-query --listfiles "$package" | grep '/systemd/system/.*\.\(service\|timer\|socket\)$' | xargs -r -n1 basename); do
      systemctl disable --quiet "$unit" 2>/dev/null || true
    done
  done
fi
