#!/usr/bin/env bash
# Puts HiveMQ into .tools/hivemq-VERSION: its jars into libs, our main class into classes; the tests find them there.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. tests/support/installers/packages.sh

version=${1:?usage: tests/support/installers/install-hivemq.sh VERSION}
target="$PWD/.tools/hivemq-$version"

missing=($(missing_packages java=default-jdk-headless javac=default-jdk-headless mvn=maven))
if ((${#missing[@]})); then
    if can_install_packages; then
        install_packages "${missing[@]}"
    else
        echo "The tests run a real HiveMQ and need a Java 11 or later that compiles, and Maven to fetch it." >&2
        echo "Install them and try again; on Debian and Ubuntu: sudo apt-get install maven default-jdk-headless" >&2
        exit 1
    fi
fi

echo "fetching HiveMQ $version"
rm -rf "$target"
mkdir -p "$target/classes"
fetch_jars tests/support/installers/hivemq "$target/libs" "-Dhivemq.version=$version"
javac -d "$target/classes" -cp "$target/libs/*" tests/support/installers/hivemq/Broker.java
touch "$target/.complete"
