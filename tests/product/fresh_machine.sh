# shellcheck shell=bash
# What a fresh Debian gets of this machine, for tests/product/fresh.sh: its caches of packages, and how registries are reached. To be
# sourced. No name of a registry is written here: variables, files and authorities are taken over as they are.

newcomer_home=/root
# Variables that say how registries are reached.
_reaching='^((https?|ftp|all|no)_proxy|PIP_\w+|UV_\w+|GO(PROXY|SUMDB|NOSUMDB|NOPROXY|PRIVATE|INSECURE)|MAVEN_(OPTS|ARGS)'
_reaching+='|JAVA_TOOL_OPTIONS|SSL_CERT_(FILE|DIR)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE)$'

# The release of this machine, or where it has none of Debian's, that of the image.
own_suite() {
    (
        . /etc/os-release
        . image/builder.sh
        [[ $ID == debian && -n ${VERSION_CODENAME:-} ]] && echo "$VERSION_CODENAME" || echo "$image_suite"
    )
}

# Where this machine gets that release from, as lines of sources.list; none where it is another one's.
debian_sources() {
    apt-get indextargets --format '$(SITE) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' |
        awk -v suite="$1" 'index($2, suite) == 1 { print "deb " $0 }' | sort -u
}

reaching_variables() {
    local name
    for name in $(compgen -e); do
        if grep -qiE "$_reaching" <<<"$name"; then
            printf '%s=%s\n' "$name" "${!name}"
        fi
    done
}

reaching_apt() {
    apt-config dump | grep -iE '^Acquire::(https?|Retries|Check-|ForceIP)' || true
}

mount_system() {
    mount -t proc proc "$1/proc"
    mount --rbind /sys "$1/sys"
    mount --rbind /dev "$1/dev"
    mount --make-rslave "$1/sys"
    mount --make-rslave "$1/dev"
}

# A directory of this machine, made if it is missing, at a place in there.
_bind() {
    mkdir -p "$1" "$2"
    mount --bind "$1" "$2"
}

give_caches() {
    local root=$1 modules
    _bind "$2" "$root/var/cache/apt/archives"
    _bind "${XDG_CACHE_HOME:-$HOME/.cache}/pip" "$root$newcomer_home/.cache/pip"
    _bind "$HOME/.m2/repository" "$root$newcomer_home/.m2/repository"
    modules=$(go env GOMODCACHE 2>/dev/null || true)
    _bind "${modules:-$HOME/go/pkg/mod}" "$root$newcomer_home/go/pkg/mod"
}

give_reach() {
    local root=$1
    cp /etc/hosts "$root/etc/hosts"
    cp --dereference /etc/resolv.conf "$root/etc/resolv.conf"
    _give_authorities "$root/usr/local/share/ca-certificates"
    _give_settings "$root"
    _give_named_paths "$root"
}

# The authorities that this machine trusts beside Debian's; ca-certificates takes them in when it is installed.
_give_authorities() {
    local bundle=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt} of_debian=(/usr/share/ca-certificates/*/*.crt)
    [[ -e $bundle ]] || return 0
    [[ -e ${of_debian[0]} ]] || of_debian=()
    mkdir -p "$1"
    awk -v directory="$1" '
        /BEGIN CERTIFICATE/ { inside = 1; body = "" }
        inside { body = body $0 "\n" }
        /END CERTIFICATE/ {
            inside = 0
            if (FILENAME != bundle) { known[body] = 1; next }
            if (!(body in known)) { printf "%s", body > (directory "/" ++count ".crt") }
        }' bundle="$bundle" "${of_debian[@]}" "$bundle"
}

# Of pip, Maven and Go: files, where there are any. Maven's own are taken where the user has none.
_give_settings() {
    local root=$1 file maven
    for file in /etc/pip.conf ~/.pip/pip.conf ~/.config/pip/pip.conf ~/.config/go/env ~/.m2/settings.xml; do
        if [[ -e $file ]]; then
            install -D --mode 0600 "$file" "$root${file/#$HOME/$newcomer_home}"
        fi
    done
    maven=$(dirname "$(realpath "$(command -v mvn || echo /usr/share/maven/bin/mvn)")")/../conf/settings.xml
    if [[ ! -e ~/.m2/settings.xml && -e $maven ]]; then
        install -D --mode 0600 "$maven" "$root$newcomer_home/.m2/settings.xml"
    fi
}

# Files and directories that those variables and files name, at the same place; what ca-certificates makes comes with it.
_give_named_paths() {
    local root=$1 path
    { reaching_variables; reaching_apt; cat "$root"/etc/pip.conf "$root$newcomer_home"/.pip/pip.conf \
        "$root$newcomer_home"/.config/pip/pip.conf 2>/dev/null || true; } |
        grep -oE '(^|[^[:alnum:]/.])/[[:alnum:]_./+-]+' | sed 's|^[^/]||' | sort -u | while read -r path; do
        if [[ -e $path && ! -e $root$path && $path != /etc/ssl/* ]]; then
            mkdir -p "$root$(dirname "$path")"
            cp --archive --dereference "$path" "$root$path"
        fi
    done
}
