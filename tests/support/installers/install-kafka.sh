#!/usr/bin/env bash
# Puts the jars of Apache Kafka into .tools/kafka-VERSION/libs, where the tests find them.
set -euo pipefail
cd "$(dirname "$0")/../../.."
. tests/support/installers/packages.sh

version=${1:?usage: tests/support/installers/install-kafka.sh VERSION}
target="$PWD/.tools/kafka-$version"

missing=($(missing_packages java=default-jre-headless mvn=maven))
if ((${#missing[@]})); then
    if can_install_packages; then
        install_packages "${missing[@]}"
    else
        echo "The tests run a real Apache Kafka and need Java 17 or later and Maven to fetch it." >&2
        echo "Install them and try again; on Debian and Ubuntu: sudo apt-get install maven default-jre-headless" >&2
        exit 1
    fi
fi

echo "fetching Apache Kafka $version"
rm -rf "$target"
fetch_jars tests/support/installers/kafka "$target/libs" "-Dkafka.version=$version"
touch "$target/.complete"
