#!/usr/bin/env bash
# Installs the packages of tools/packages.txt that this machine lacks (Debian and Ubuntu), or says what is missing.
# Usage: tools/setup.sh [--no-install] [MORE PACKAGES...]
# Exit code: 0 all is there now, 3 something is missing and was not installed, 1 installation failed.
set -euo pipefail

list="$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/packages.txt"

say() { printf 'tessera: %s\n' "$*" >&2; }

# Names of all packages of the list that this release needs.
wanted() {
  local release='' package rule value
  [ -r /etc/os-release ] && release="$(. /etc/os-release && echo "${ID:-}-${VERSION_ID:-}")"
  while read -r package rule value; do
    case "$package" in '' | '#'*) continue ;; esac
    case "$rule" in
      unless) command -v "$value" > /dev/null && continue ;;
      on) [ "$release" = "$value" ] || continue ;;
    esac
    echo "$package"
  done < "$list"
}

missing() {
  local package installed
  # A package counts as installed where its status says so; the name may carry its architecture.
  installed="$(dpkg-query -W -f='${db:Status-Status} ${Package}\n' 2> /dev/null | sed -n 's/^installed //p' | sort -u)"
  { wanted; printf '%s\n' "$@"; } | sed '/^$/d' | while read -r package; do
    grep -qxF -- "$package" <<< "$installed" || echo "$package"
  done
}

foreign_system() {
  say "there is no apt-get here to install what Tessera needs. Install these by your system's package manager:"
  say "  a compiler (GCC 12 or Clang 14, or newer), CMake 3.22, Ninja, pkg-config; the development packages of oneDNN,"
  say "  libjpeg-turbo, OpenCV 4, FFmpeg (4.4 or newer), Oniguruma, utf8proc, zlib, stb, nlohmann-json, Eigen, CLI11 and GoogleTest"
  say "On Debian and Ubuntu they are called: $(wanted | paste -sd ' ')"
}

apt() {
  ${sudo:+"$sudo"} env DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 apt-get -q -o DPkg::Lock::Timeout=300 \
    -o Dpkg::Use-Pty=0 "$@" < /dev/null >> "$log" 2>&1
}

install_packages() {
  log="$(mktemp -t tessera-setup.XXXXXX)"
  say "installing by apt-get, which may take some minutes (log: $log): $*"
  compgen -G '/var/lib/apt/lists/*_Packages*' > /dev/null || apt update || true
  apt install -y --no-install-recommends "$@" && return
  say "that failed; trying again with fresh package lists"
  apt update && apt install -y --no-install-recommends "$@" && return
  say "apt-get could not install what is missing; the end of $log:"
  tail -n 20 "$log" >&2
  return 1
}

main() {
  local sudo='' packages no_install=''
  if [ "${1:-}" = --no-install ]; then
    no_install=1
    shift
  fi
  if ! command -v apt-get > /dev/null || ! command -v dpkg-query > /dev/null; then
    foreign_system
    exit 3
  fi
  mapfile -t packages < <(missing "$@")
  [ "${#packages[@]}" -gt 0 ] || exit 0
  if [ "$(id -u)" -ne 0 ]; then sudo="$(command -v sudo || true)"; fi
  if [ -n "$no_install" ] || { [ "$(id -u)" -ne 0 ] && [ -z "$sudo" ]; }; then
    say "packages are missing; install them (as root) with"
    say "  ${sudo:+sudo }apt-get install --no-install-recommends ${packages[*]}"
    exit 3
  fi
  install_packages "${packages[@]}" || exit 1
}

main "$@"
