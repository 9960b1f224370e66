#!/usr/bin/env bash
# Installs the browser in which the tests look at the status page; where that is not possible these tests are skipped.
set -euo pipefail

missing=()
command -v chromium >/dev/null || missing+=(chromium)
command -v chromedriver >/dev/null || missing+=(chromium-driver)
if ((${#missing[@]} == 0)); then
    exit 0
fi
if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
    echo "Without ${missing[*]} the tests of the status page are skipped; on Debian: sudo apt-get install ${missing[*]}" >&2
    exit 0
fi
# On Ubuntu the packages of this name only fetch a snap, which does not run everywhere.
if ! apt-get -qq update || ! DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends \
    "${missing[@]}" fonts-dejavu-core >/dev/null; then
    echo "${missing[*]} cannot be installed here: the tests of the status page are skipped" >&2
    exit 0
fi
