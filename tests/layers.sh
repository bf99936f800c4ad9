#!/bin/sh
# Includes point one way, and each library has one home: fails, naming file, line and include, when
# a file of src/ or modules/ breaks one of the two rules below.
#
#   layers.sh           checks the tree this script is in
#   layers.sh ROOT      checks ROOT/src and ROOT/modules
#
# It first checks itself: a small tree that breaks every rule must be found guilty of each.
set -eu
LC_ALL=C
export LC_ALL

# Layer and include -> allowed? Folders match whole, files by name; exceptions say why.
layers='
base    base/
module  base/ module/ weir/module.h
conf    base/ module/ conf/ weir/module.h
net     base/ net/
http    base/ net/ http/
proxy   base/ module/ net/ http/ proxy/ weir/module.h conf/model.h conf/template.h conf/variable.tbl
daemon  base/ module/ conf/ net/ http/ proxy/ daemon/ weir/module.h
include
modules weir/module.h accept.h credential.h crypt_cost.h jwt.h
'
# FILE INCLUDE: what a path or a field's name may be only http knows, in two files that are pure;
# a generation is where a model becomes something that runs, and its functions say what is wrong with it;
# a module of several files has a header of its own.
exceptions='
src/conf/compile_route.c http/path.h
src/conf/*      http/field.h
src/proxy/gen.* conf/conf.h
src/proxy/instance.c conf/conf.h
src/proxy/cases.c conf/conf.h
src/proxy/cases.h conf/report.h
src/proxy/cases_play.h conf/report.h
src/proxy/cases_play.h conf/source.h
src/proxy/staple.c conf/report.h
modules/lua* lua_module.h
'
# HEADER HOME...; a header that is not listed belongs to libc and may be anywhere.
# A module may use any library but those that would let it wait behind the loop's back.
homes='
openssl/*  src/net/tls* src/base/crypto.* src/base/crypto_key.* modules/*
jansson.h  src/base/json.* modules/*
nghttp2/*  src/http/h2_*
hiredis/*  src/net/redis*
ares.h     src/net/dns*
ares_*.h   src/net/dns*
pcre2.h    src/base/regex.* modules/*
zlib.h     modules/*
zstd.h     modules/*
brotli/*   modules/*
dlfcn.h    src/module/* src/base/crumb.*
lua.h      modules/lua*
lauxlib.h  modules/lua*
lualib.h   modules/lua*
luajit.h   modules/lua*
event2/*   src/net/*
event.h    src/net/*
'

# matches WORD PATTERN...
matches() {
        word=$1
        shift
        for pattern; do
                # shellcheck disable=SC2254 # patterns are meant as such
                case $word in $pattern) return 0 ;; esac
        done
        return 1
}

layer_allows() { # FILE LAYER INCLUDE
        file=$1 layer=$2 inc=$3
        while read -r name allowed; do
                [ "$name" = "$layer" ] || continue
                for a in $allowed; do
                        case $a in
                        */) matches "$inc" "$a*" && return 0 ;;
                        *) matches "$inc" "$a" && return 0 ;;
                        esac
                done
        done <<LAYERS
$layers
LAYERS
        while read -r pattern header; do
                [ -n "$pattern" ] && matches "$file" "$pattern" && [ "$inc" = "$header" ] && return 0
        done <<EXCEPTIONS
$exceptions
EXCEPTIONS
        return 1
}

library_allows() { # FILE INCLUDE
        file=$1 inc=$2
        while read -r header home; do
                [ -n "$header" ] && matches "$inc" "$header" || continue
                # shellcheck disable=SC2086 # several homes
                matches "$file" $home && return 0
                return 1
        done <<HOMES
$homes
HOMES
        return 0
}

# Prints what is wrong below ROOT, one line each.
check_tree() {
        cd "$1"
        dirs=src
        [ ! -d modules ] || dirs="$dirs modules"
        # shellcheck disable=SC2086 # several folders
        find $dirs -name '*.[ch]' -o -name '*.tbl' | sort | while read -r file; do
                case $file in
                modules/*) layer=modules ;;
                *) layer=${file#src/} layer=${layer%%/*} ;;
                esac
                sed -n 's/^[ 	]*#[ 	]*include[ 	]*\([<"]\)\([^>"]*\)[>"].*/\1 \2/;T;=;p' "$file" |
                        sed 'N;s/\n/ /' | while read -r line mark inc; do
                        if [ "$mark" = '"' ] || [ "$inc" = weir/module.h ]; then
                                layer_allows "$file" "$layer" "$inc" ||
                                        echo "$file:$line: $layer must not include \"$inc\""
                        else
                                library_allows "$file" "$inc" ||
                                        echo "$file:$line: <$inc> has another home"
                        fi
                done
        done
}

# Every rule broken once, each by the only include of its file, and files that are in order.
self_check() {
        tmp=$(mktemp -d)
        trap 'rm -rf "$tmp"' EXIT
        put() { # FILE INCLUDE...
                mkdir -p "$tmp/$(dirname "$1")"
                : >"$tmp/$1"
                to=$tmp/$1
                shift
                for i; do echo "#include $i" >>"$to"; done
        }
        put src/base/good.c '"base/str.h"' '<stdio.h>'
        put src/base/json.c '<jansson.h>'
        put src/net/tls_io.c '<openssl/ssl.h>' '"net/io.h"' '<event2/event.h>'
        put src/conf/model.h '"base/addr.h"' '<weir/module.h>'
        put src/proxy/gen.c '"conf/conf.h"' '"http/msg.h"'
        put src/daemon/main.c '"conf/lex.h"' '"proxy/gen.h"'
        put modules/headers.c '<weir/module.h>'
        put src/base/bad1.c '"net/io.h"'
        put src/base/bad2.c '"str.h"'
        put src/base/bad3.h '<weir/module.h>'
        put src/base/bad4.c '<openssl/evp.h>'
        put src/net/bad5.c '  "http/msg.h"'
        put src/net/bad6.c '<pcre2.h>'
        put src/conf/bad7.c '"net/io.h"'
        put src/conf/bad8.c '<event2/event.h>'
        put src/http/bad9.c '"conf/model.h"'
        put src/proxy/bad10.c '"conf/conf.h"'
        put src/proxy/bad11.c '<dlfcn.h>'
        put src/daemon/bad12.c '<hiredis/hiredis.h>'
        put src/module/bad13.c '"conf/model.h"'
        put modules/bad14.c '"base/str.h"'
        put modules/bad15.c '<event2/event.h>'
        put src/include/weir/bad16.h '"base/defs.h"'
        put src/daemon/bad17.c '<ares.h>'
        put src/daemon/bad18.c '<jansson.h>'
        printf '/* */\n # include <nghttp2/nghttp2.h>\n' >"$tmp/src/http/bad19.c"
        found=$(check_tree "$tmp")
        names=$(echo "$found" | sed -n 's,.*/\(bad[0-9]*\)\..*,\1,p' | sort -u | wc -l)
        if [ "$names" -ne 19 ] || [ "$(echo "$found" | wc -l)" -ne 19 ]; then
                echo "layers.sh does not find what it should:"
                echo "$found"
                exit 1
        fi
        echo "$found" | grep -q '^src/http/bad19.c:2: ' || {
                echo "layers.sh does not count lines: $found"
                exit 1
        }
}

self_check
root=${1:-${top_srcdir:-$(dirname "$0")/..}}
found=$(check_tree "$root")
if [ -n "$found" ]; then
        echo "$found"
        exit 1
fi
