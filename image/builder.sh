# shellcheck shell=bash
# Builds the image without a registry of images and without a daemon, as root on Debian or Ubuntu: a Debian base of their
# packages by mmdebstrap, and the Dockerfile on it by buildah. To be sourced, by those who build a release and who test.
# The only time in it is SOURCE_DATE_EPOCH, so that the same sources, packages and wheels give the same image.

image_suite=bookworm

image_tools_missing() {
    for tool in mmdebstrap buildah "$@"; do
        PATH="$PATH:/usr/sbin:/sbin" command -v "$tool" >/dev/null || echo "$tool"
    done
}

# Why the image cannot be built here; nothing where it can.
image_hindrance() {
    local missing
    missing=$(image_tools_missing "$@" | tr '\n' ' ')
    if [[ $EUID -ne 0 ]] || ! command -v apt-get >/dev/null; then
        echo "it is built as root on Debian or Ubuntu"
    elif [[ -n $missing ]]; then
        echo "these programs are missing: ${missing% }"
    fi
}

# All that is needed meanwhile is in a directory, which the caller removes.
image_work_in() {
    image_work=$(realpath "$1")
    image_storage=(buildah --root "$image_work/storage" --runroot "$image_work/run" --storage-driver vfs)
}

# How this machine reaches its package index; given to one step of the build, and not in the image.
image_secrets() {
    local authorities index secrets="$image_work/secrets"
    mkdir "$secrets"
    authorities=$(python3 -m pip config get global.cert 2>/dev/null || echo /etc/ssl/certs/ca-certificates.crt)
    if [[ -e $authorities ]]; then
        cp "$authorities" "$secrets/authorities.crt"
    else
        touch "$secrets/authorities.crt"
    fi
    {
        echo "[global]"
        [[ ! -s $secrets/authorities.crt ]] || echo "cert = /run/authorities.crt"
        index=$(python3 -m pip config get global.index-url 2>/dev/null || true)
        [[ -z $index ]] || echo "index-url = $index"
    } >"$secrets/pip.conf"
}

image_bud() {
    "${image_storage[@]}" bud --quiet --timestamp "$SOURCE_DATE_EPOCH" --identity-label=false "$@"
}

# The Debian is the same for the same packages: mmdebstrap takes its times from SOURCE_DATE_EPOCH too. What it copies from
# this machine, to have names resolved meanwhile, is emptied. IMAGE_DEBIAN_SOURCES is a file in the form of sources.list
# that says where the packages come from, such as an archive of a certain day, whose lists may have expired since.
image_base() {
    local options=(--variant=minbase) sources=()
    if [[ -n ${IMAGE_DEBIAN_SOURCES:-} ]]; then
        sources=("$(realpath "$IMAGE_DEBIAN_SOURCES")")
        options+=('--aptopt=Acquire::Check-Valid-Until "false"')
    fi
    mmdebstrap --quiet "${options[@]}" --customize-hook=': >"$1/etc/hostname"; : >"$1/etc/resolv.conf"' \
        "$image_suite" "$image_work/base.tar" "${sources[@]}"
    printf 'FROM scratch\nADD base.tar /\n' |
        image_bud --file - --tag "localhost/debian:$image_suite" "$image_work" >/dev/null
    rm "$image_work/base.tar"
}

# The format is Docker's, as that of the OCI knows no health check. No registry of images is asked for anything: the base is
# the one that was made above.
image_build() {
    local source=$1 log="$image_work/build.log"
    shift
    image_bud --pull-never --isolation chroot --network host --format docker "$@" \
        --build-arg "BASE_IMAGE=localhost/debian:$image_suite" --build-arg "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" \
        --secret "id=pip.conf,src=$image_work/secrets/pip.conf" \
        --secret "id=authorities,src=$image_work/secrets/authorities.crt" \
        --tag localhost/connector "$source" >"$log" 2>&1 || { tail -n 40 "$log" >&2; return 1; }
}

# What Debian has in the image, one package a line: name, version, architecture.
image_packages() {
    local container place
    container=$("${image_storage[@]}" from --pull-never localhost/connector)
    place=$("${image_storage[@]}" mount "$container")
    dpkg-query --admindir="$place/var/lib/dpkg" --show --showformat '${Package} ${Version} ${Architecture}\n' | LC_ALL=C sort
    "${image_storage[@]}" rm "$container" >/dev/null
}
