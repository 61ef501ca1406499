#!/usr/bin/env bash
# Installs from a checkout, a wheel, an sdist and editable, each in an environment of
# its own: the plugin is listed from any folder, the wheel has what it should, and
# uninstalling leaves Twisted whole.
set -euo pipefail
python=${1:-python3}
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

git clone -q "$root" "$work/source"
"$python" -m venv "$work/build"
"$work/build/bin/pip" -q install build
(cd "$work/source" && "$work/build/bin/python" -m build -q --outdir "$work/dist" >/dev/null)

contents=$("$python" -m zipfile -l "$work"/dist/*.whl)
for wanted in $(cd "$work/source" && git ls-files sockproto twisted); do
    grep -q "^$wanted " <<<"$contents" || { echo "the wheel lacks $wanted"; exit 1; }
done
for unwanted in '^twisted/__init__' '^twisted/plugins/__init__' '^tests/' 'dropin'; do
    ! grep "$unwanted" <<<"$contents" || { echo "the wheel has $unwanted"; exit 1; }
done

check() { # name, what pip is given
    local venv=$work/$1
    shift
    "$python" -m venv "$venv"
    "$venv/bin/pip" -q install "$@"
    (
        cd /
        # Not through a pipe: grep -q leaves early, and a broken pipe is a failure.
        grep -q '^ *sockproto ' <<<"$("$venv/bin/twistd" --help)"
        grep -q '^ *sockproto ' <<<"$("$venv/bin/twist" --help)"
        grep -q '^sockproto [0-9]' <<<"$("$venv/bin/sockproto" --version)"
        "$venv/bin/pip" -q uninstall -y sockproto
        left=$("$venv/bin/twistd" --help)
        if grep -q '^ *sockproto ' <<<"$left"; then exit 1; fi
        "$venv/bin/python" -c 'import twisted.plugins, twisted.internet.reactor'
        "$venv/bin/twistd" -n web --help >/dev/null
    )
    echo "installed, listed and removed: $(basename "$venv")"
}

check checkout "$work/source"
check wheel "$work"/dist/*.whl
check sdist "$work"/dist/*.tar.gz
check editable -e "$work/source"
