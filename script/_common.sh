# Shared by the scripts in this directory; sourced, never run. Needs bash 4.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/.venv
cd "$root"

# die MESSAGE [HINT]
die() {
  printf 'error: %s\n' "$1" >&2
  [ $# -lt 2 ] || printf 'hint: %s\n' "$2" >&2
  exit 1
}

say() { printf '== %s\n' "$*"; }

is_root() { [ "$(id -u)" = 0 ]; }

can_apt() { is_root && command -v apt-get >/dev/null 2>&1; }

# apt_install PACKAGE...   (as root on a Debian-like system)
apt_install() {
  say "installing with apt: $*"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q </dev/null >/dev/null || die "apt-get update failed" "is the network reachable?"
  apt-get install -qy --no-install-recommends "$@" </dev/null >/dev/null ||
    die "apt-get install $* failed"
}
