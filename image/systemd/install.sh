#!/bin/sh
# Installs what lies beside this file as a service of systemd, as root and without any network: `sh install.sh`. Beside
# Python, it needs nothing that a Debian or Ubuntu is without. Run again with another version, it takes the place of the
# one that is there; settings and data stay.
set -eu
cd "$(dirname "$0")"
place=/opt/connector settings=/etc/connector.env user=connector
python=${PYTHON:-python3}

fail() {
    echo "install.sh: $1" >&2
    exit 1
}

sha256sum --check --strict --quiet SHA256SUMS || fail "these are not the files of the release: fetch them again"
[ "$(id -u)" = 0 ] || fail "run it as root"
"$python" -c 'import platform, sys
sys.exit(not ((3, 10) <= sys.version_info[:2] <= (3, 13) and platform.machine() == "x86_64" and platform.libc_ver()[0]))' ||
    fail "$python must be Python 3.10 to 3.13 on x86-64 with glibc; PYTHON=python3.11 sh install.sh takes another one"
if command -v systemctl >/dev/null && systemctl --quiet is-active connector 2>/dev/null; then
    fail "the service runs: stop it first (systemctl stop connector), and start it afterwards"
fi

umask 022
mkdir -p "$place"
# Debian has the module venv in Python itself; what its package python3-venv adds is pip, which is here too.
"$python" -m venv --clear --without-pip "$place/venv"
pip="$(echo wheels/pip-*.whl)/pip"
# Neither an index nor settings of pip that this machine may have are looked at.
export PIP_CONFIG_FILE=/dev/null PIP_NO_INDEX=1 PIP_FIND_LINKS=wheels PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
"$place/venv/bin/python" "$pip" install --quiet --only-binary :all: --require-hashes --requirement requirements.txt
"$place/venv/bin/python" "$pip" install --quiet --no-deps wheels/connector-*.whl
cp -r LICENSE docs "$place/"

if ! id "$user" >/dev/null 2>&1; then
    useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$user"
fi
# The service's user reads its secrets there, and nobody else; only root changes them.
if [ ! -e "$settings" ]; then
    install -m 0640 -o root -g "$user" connector.env "$settings"
    sed -i 's|^#RUN_MODE=.*|RUN_MODE=PRODUCTION|; s|^#DB_PERSIST_PATH=.*|DB_PERSIST_PATH=/var/lib/connector|' "$settings"
elif ! grep -q '^DB_PERSIST_PATH=.' "$settings"; then
    echo "install.sh: $settings does not set DB_PERSIST_PATH: without it, what waits for Kafka is in memory alone; the" \
        "unit's directory is /var/lib/connector" >&2
fi
# As systemd makes it; `connector check` looks at it before the first start.
[ -d /var/lib/connector ] || install -d -m 0700 -o "$user" -g "$user" /var/lib/connector
mkdir -p /etc/systemd/system /usr/local/bin
install -m 0644 connector.service /etc/systemd/system/
install -m 0755 connector /usr/local/bin/
[ ! -d /run/systemd/system ] || systemctl daemon-reload
"$place/venv/bin/connector" --version
echo "installed in $place; settings are in $settings"
