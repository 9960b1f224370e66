# shellcheck shell=bash
# Debian packages, for the scripts that install what the tests and the comparison need; to be sourced.

can_install_packages() {
    [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null
}

install_packages() {
    echo "installing $*"
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "$@" >/dev/null
}
