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

# Whether there is a Go of this version or a later one. A newer one must not be fetched; that of Debian 12 is too old
# for most of what is built here.
has_go() {
    command -v go >/dev/null &&
        [[ $(printf '%s\n' "$1" "$(go env GOVERSION | sed 's/^go//')" | sort --version-sort | head -n 1) == "$1" ]]
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

# Fails unless a directory has the files of a list in the form of sha256sum, each with its sum, and no others.
check_files() {
    local directory=$1 sums
    sums=$(realpath "$2")
    if ! diff <(cut -c 67- "$sums" | LC_ALL=C sort) <(LC_ALL=C ls "$directory" | LC_ALL=C sort) >&2; then
        echo "$directory has other files than $sums names" >&2
        return 1
    fi
    if ! (cd "$directory" && sha256sum --check --strict --quiet "$sums") >&2; then
        echo "$directory has files that are not those of $sums" >&2
        return 1
    fi
}

# The jars that a pom.xml names, into a directory, each checked by its sum. The plugin that copies them is pinned by its
# version; of it, as of all that it fetches, Maven checks the repository's own sums.
fetch_jars() {
    local folder=$1 target=$2
    # Without colour and in batch mode, so that the log of a build stays readable.
    mvn --batch-mode --quiet --strict-checksums -Dstyle.color=never --file "$folder/pom.xml" \
        org.apache.maven.plugins:maven-dependency-plugin:2.8:copy-dependencies \
        "${@:3}" -DincludeScope=runtime "-DoutputDirectory=$target"
    check_files "$target" "$folder/jars.sha256" || { rm -rf "$target"; return 1; }
}
