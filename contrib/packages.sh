# Sourced by contrib/quickstart and contrib/check: what weir needs of Debian, and how it is installed.

build_packages="gcc libc6-dev make autoconf automake libtool pkg-config libssl-dev libevent-dev
libpcre2-dev libhiredis-dev libnghttp2-dev libc-ares-dev libjansson-dev libcrypt-dev
libluajit-5.1-dev zlib1g-dev libbrotli-dev libzstd-dev"

demo_packages="python3 openssl curl ca-certificates"

test_packages="$demo_packages libcmocka-dev python3-pytest python3-pytest-xdist python3-cryptography python3-h2 python3-grpcio
nghttp2-client nghttp2-server redis-server nginx-light nodejs haproxy h2o wrk testssl.sh
strace valgrind clang libclang-rt-14-dev llvm clang-format cppcheck mandoc xz-utils util-linux procps"

# Prints the packages of the list that are not installed.
missing_packages() {
        for package in "$@"; do
                case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) in
                *' installed') ;;
                *) printf '%s ' "$package" ;;
                esac
        done
}

# Installs what is missing of the list.  Services that come with a package are not started.
install_packages() {
        local wanted as_root='' policy=/usr/sbin/policy-rc.d made='' log status=0
        command -v dpkg-query >/dev/null || {
                echo "this is not Debian: please install the likes of: $*" >&2
                return 0
        }
        wanted=$(missing_packages "$@")
        [ -n "$wanted" ] || return 0
        if [ "$(id -u)" != 0 ]; then
                command -v sudo >/dev/null || {
                        echo "missing: $wanted; run this as root or install sudo" >&2
                        return 1
                }
                as_root='sudo'
        fi
        echo "installing: $wanted"
        if [ ! -e $policy ]; then
                printf '#!/bin/sh\nexit 101\n' | $as_root tee $policy >/dev/null
                $as_root chmod 755 $policy
                made=yes
        fi
        log=$(mktemp)
        { $as_root apt-get update -qq &&
                $as_root env DEBIAN_FRONTEND=noninteractive \
                        apt-get install -y -qq --no-install-recommends $wanted; } >"$log" 2>&1 || status=$?
        [ $status = 0 ] || cat "$log" >&2
        rm -f "$log"
        [ -z "$made" ] || $as_root rm -f $policy
        return $status
}

# Copies the sources (not what builds and the version control left there) to a folder, with their times,
# and makes configure there: a checkout that somebody built in does not disturb, and is not touched.
copy_sources() {
        rm -rf "$1"
        mkdir -p "$1"
        tar -C "$2" -c --exclude=./.git --exclude='./build*' --exclude=./autom4te.cache \
                --exclude=./config.status --exclude=./Makefile --exclude='*.o' --exclude='*.a' \
                --exclude=.deps --exclude=.dirstamp --exclude=__pycache__ . | tar -C "$1" -x
        (cd "$1" && autoreconf -fi)
}
