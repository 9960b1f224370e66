#!/usr/bin/env bash
# What a newcomer meets: an empty Debian, the last commit in it, and the README's commands; as root on Debian or Ubuntu.
# Of this machine there are its package caches, and how it reaches the registries (tests/product/fresh_machine.sh). It ends within
# FRESH_MINUTES (80), fails with what fails in there and for a skipped test that tests/product/fresh_report.py does not expect,
# and leaves build/fresh/log. FRESH_ARGS are arguments of pytest in the place of the whole suite.
#
# The work is done in name spaces of its own for mounts and processes: whatever ends it, ends what it started, and
# nothing stays mounted. Where they are refused, it is done without, and unmounted at the end.
set -euo pipefail
cd "$(dirname "$0")/../.."
. tests/support/installers/packages.sh
. tests/product/fresh_machine.sh

export HOME=${HOME:-/root}
place=$PWD/build/fresh
root=$place/root
minutes=${FRESH_MINUTES:-80}
report=/srv/report.xml

# ---- outside

give_back() {
    trap - EXIT INT TERM
    kill -KILL -- "-${child:-x}" 2>/dev/null || true
    wait 2>/dev/null
    for process in /proc/[0-9]*; do
        [[ $(readlink "$process/root") != "$root" ]] || kill -KILL "${process#/proc/}" || true
    done 2>/dev/null
    if grep -q " $root/" /proc/self/mountinfo; then
        # Only where it was done without name spaces.
        awk -v root="$root/" 'index($5, root) == 1 { print $5 }' /proc/self/mountinfo | sort -r | xargs -r umount -l
    fi
    # Never into what is mounted from this machine.
    grep -q " $root/" /proc/self/mountinfo || rm -rf --one-file-system "$root"
}

prepare() {
    if ! can_install_packages; then
        echo "make fresh makes a Debian of its own, and so needs root on Debian or Ubuntu" >&2
        exit 1
    fi
    missing=($(missing_packages mmdebstrap=mmdebstrap git=git unshare=util-linux))
    # In any case, as an empty list of packages does not say where this machine gets them from.
    # A source of this machine that does not answer is no fault of what is tested.
    apt-get -qq update || true
    ((${#missing[@]} == 0)) || install_packages "${missing[@]}"
    mkdir -p "$place/archives"
    exec 9>"$place/lock"
    flock --nonblock 9 || { echo "another make fresh runs in $place" >&2; exit 1; }
    give_back
    if [[ -n $(git status --porcelain 2>/dev/null) ]]; then
        echo "what is not committed is not tested" >&2
    fi
}

isolated() {
    local spaces=(unshare --mount --pid --fork --kill-child --propagation private)
    "${spaces[@]}" true 2>/dev/null || spaces=()
    # In a group of its own, which can be ended as a whole; and each ends when the one before it is killed.
    FRESH_INSIDE=1 setpriv --pdeathsig KILL timeout --signal=KILL "$((minutes * 60))" \
        setpriv --pdeathsig KILL "${spaces[@]}" "$0" </dev/null 9>&- &
    child=$!
    trap give_back EXIT
    trap 'exit 130' INT TERM
    wait "$child" && return || code=$?
    ((code != 137)) || echo "make fresh was ended; it may take $minutes minutes (FRESH_MINUTES)" >&2
    return "$code"
}

# ---- inside

# Begins a stage, and ends the one before.
stage() {
    stage_ends
    current=$1
    started=$(date +%s)
    printf '\n==> %s\n' "$current"
}

stage_ends() {
    if [[ -n ${current:-} ]]; then
        printf '%5d s  %s\n' "$(($(date +%s) - started))" "$current" >>"$place/times"
    fi
    current=
}

in_there() {
    chroot "$root" /usr/bin/env -i "HOME=$newcomer_home" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        LANG=C.UTF-8 "${reach[@]}" /usr/bin/env --chdir="$1" "${@:2}"
}

empty_debian() {
    local sources=() archives=$place/archives
    mapfile -t sources < <(debian_sources "$suite")
    mmdebstrap --quiet --variant=minbase --skip=download/empty --skip=essential/unlink \
        --aptopt="$place/apt.conf" --setup-hook="mkdir -p \"\$1/var/cache/apt/archives\"" \
        --setup-hook="sync-in '$archives' /var/cache/apt/archives" \
        --customize-hook="sync-out /var/cache/apt/archives '$archives'" \
        "$suite" "$root" "${sources[@]}"
    # As in every container: what is installed is not started.
    printf '#!/bin/sh\nexit 101\n' >"$root/usr/sbin/policy-rc.d"
    chmod 755 "$root/usr/sbin/policy-rc.d"
    mount_system "$root"
    give_caches "$root" "$archives"
    give_reach "$root"
}

last_commit() {
    # Whoever the clone belongs to in continuous integration.
    printf '[safe]\n\tdirectory = *\n' >"$place/gitconfig"
    GIT_CONFIG_GLOBAL=$place/gitconfig git clone --quiet --depth 1 "file://$PWD" "$root/srv/connector"
    GIT_CONFIG_GLOBAL=$place/gitconfig git -C "$root/srv/connector" log -1 --format='%h %s'
}

what_the_readme_asks_for() {
    local packages
    packages=$(sed -n 's/.*`apt-get install \([^`]*\)`.*/\1/p' "$root/srv/connector/README.md" | head -n 1)
    echo "apt-get install $packages"
    in_there / apt-get -qq update
    # shellcheck disable=SC2086
    in_there / env DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes $packages >/dev/null
}

newcomer() {
    trap stage_ends EXIT
    stage "an empty Debian ($suite)"
    empty_debian
    stage "the last commit"
    last_commit
    stage "what the README asks for"
    what_the_readme_asks_for
    stage "make run SECONDS=20"
    in_there /srv/connector make run SECONDS=20
    stage "make test"
    in_there /srv/connector env "PYTEST_ADDOPTS=--junit-xml=$report" make test "ARGS=${FRESH_ARGS:-}"
}

inside() {
    local status=0
    suite=$(own_suite)
    mapfile -t reach < <(reaching_variables)
    reaching_apt >"$place/apt.conf"
    : >"$place/times"
    # The first process in here: it ends when all is written, and then everything else does.
    set +e
    (set -e; newcomer) 2>&1 | tee "$place/log"
    status=${PIPESTATUS[0]}
    printf '\n==> what came of it\n'
    cat "$place/times"
    python3 tests/product/fresh_report.py "$root$report" "$place/log" || status=$((status ? status : 1))
    return "$status"
}

# Read as a whole before anything is done: who edits this file meanwhile changes nothing.
{
    if [[ -n ${FRESH_INSIDE:-} ]]; then
        inside
    else
        prepare
        isolated
    fi
    exit
}
