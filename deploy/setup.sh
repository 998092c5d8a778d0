#!/usr/bin/env bash
# Makes this checkout ready to run: .venv from constraints.txt, every file checked by its hash.
# With --tests also Debian's packages in deploy/debian-packages.txt, and an S3 server from npm. Run again, it does
# only what is missing.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly venv=$PWD/.venv stamp=.venv/.made-from

say() { printf 'setup: %s\n' "$*"; }

fail() {
  printf 'setup: %s\n' "$@" >&2
  exit 1
}

# Runs a command quietly, and shows what it printed if it fails.
quietly() {
  local log
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1; then
    tail -n 30 "$log" >&2
    rm -f "$log"
    fail "failed: $*"
  fi
  rm -f "$log"
}

may_be_root() { [[ $EUID -eq 0 ]] || sudo -n true 2>/dev/null; }

as_root() { if [[ $EUID -eq 0 ]]; then "$@"; else sudo -n "$@"; fi; }

# The part that runs as root. Debian starts a service when it is installed, unless policy-rc.d forbids it.
install_as_root() {
  local policy=/usr/sbin/policy-rc.d
  if [[ ! -e $policy ]]; then
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
  fi
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends --no-remove "$@"
}

# Installs the named Debian packages, or says which command would.
install_packages() {
  if ! command -v apt-get >/dev/null || ! may_be_root; then
    fail "needed, and not installed: $*" "as root: apt-get install --no-install-recommends $*"
  fi
  say "installing Debian packages (no service is started): $*"
  quietly as_root "$BASH" deploy/setup.sh --as-root "$@"
}

missing_packages() {
  local package
  while read -r package _; do
    [[ -z $package || $package == \#* ]] && continue
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] && continue
    [[ $package == npm ]] && command -v npm >/dev/null && continue # it came with another Node.js
    echo "$package"
  done <deploy/debian-packages.txt
}

# python3.11, for which constraints.txt was made, or a newer one.
find_python() {
  local name
  for name in python3.11 python3 python3.12 python3.13 python3.14; do
    if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$name"
      return
    fi
  done
  fail "needed: Python 3.11 or newer (Debian 12: apt-get install python3)"
}

# A virtual environment works only with the interpreter, and at the place, that it was made for.
venv_works() {
  .venv/bin/python -c 'import pip' 2>/dev/null && grep -qF " $venv" .venv/pyvenv.cfg
}

make_venv() {
  local python
  python=$(find_python)
  "$python" -c 'import ensurepip, venv' 2>/dev/null || install_packages python3-venv
  say "making .venv with $("$python" -V)"
  "$python" -m venv --clear .venv
}

wanted() { { printf '%s\n' "$venv"; cat constraints.txt pyproject.toml; } | sha256sum | cut -d ' ' -f 1; }

prepare_venv() {
  [[ -f $stamp && $(<"$stamp") == "$(wanted)" ]] && venv_works && return
  venv_works || make_venv
  local pip=(.venv/bin/python -m pip install --quiet --no-input --disable-pip-version-check --no-deps)
  say "installing the Python packages of constraints.txt (a minute or two the first time)"
  quietly "${pip[@]}" --require-hashes --only-binary :all: -r constraints.txt
  quietly "${pip[@]}" --no-build-isolation -e .
  # pip compiles what it installs, but not what stays here; a command that had to would take twice as long.
  quietly .venv/bin/python -m compileall -q aggregation audit compliance gateway
  wanted >"$stamp"
}

prepare_tests() {
  local missing
  mapfile -t missing < <(missing_packages)
  [[ ${#missing[@]} -eq 0 ]] || install_packages "${missing[@]}"
  prepare_s3rver
}

# The S3 server that checks signatures: from its lock file, every package checked by its hash, no script of theirs run.
prepare_s3rver() {
  local folder=tests/services/s3rver
  local made_from=$folder/node_modules/.made-from wanted
  wanted=$(sha256sum <$folder/package-lock.json)
  [[ -f $made_from && $(<"$made_from") == "$wanted" ]] && return
  say "installing the S3 server of the tests (npm, a few seconds)"
  quietly npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund
  echo "$wanted" >"$made_from"
}

case ${1:-} in
  --as-root) install_as_root "${@:2}" ;;
  --tests)
    prepare_venv
    prepare_tests
    ;;
  '') prepare_venv ;;
  *) fail "usage: deploy/setup.sh [--tests]" ;;
esac
