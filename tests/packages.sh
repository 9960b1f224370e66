# shellcheck shell=bash
# Debian packages, for the scripts that install what the tests and the comparison need; to be sourced.

can_install_packages() {
    [[ $EUID -eq 0 ]] && command -v apt-get >/dev/null
}

# Of pairs PROGRAM=PACKAGE, the packages whose programs are missing. A test holds the programs that are called anywhere
# against these pairs.
missing_packages() {
    local pair
    for pair; do
        # Debian puts programs for root where the PATH of an ordinary user does not look.
        PATH="$PATH:/usr/sbin:/sbin" command -v "${pair%%=*}" >/dev/null || echo "${pair#*=}"
    done | sort -u
}

install_packages() {
    echo "installing $*"
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends "$@" >/dev/null </dev/null
}

# Debian's packages of servers start them, which nobody here asked for.
stop_service() {
    if [[ -d /run/systemd/system ]]; then
        systemctl disable --now "$1"
    fi
}
