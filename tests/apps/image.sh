#!/usr/bin/env bash
# Makes the root of a container image from what this machine has, because none can be pulled: programs with the libraries
# that they are linked with, in Debian's layout.
#
#   image.sh base FOLDER      what the last stage of the Dockerfile asks of debian:bookworm-slim
#   image.sh python FOLDER    the same with Debian's python3 and its standard library
set -euo pipefail
kind=$1 root=$2

put() { # FILE: into the root, at its real place
    local real
    real=$(readlink -f "$1")
    mkdir -p "$root$(dirname "$real")"
    cp -n "$real" "$root$real"
    # The name it is asked for by, when that is a link.
    local name
    name=$(readlink -f "$(dirname "$1")")/$(basename "$1")
    [[ -e $root$name ]] || { mkdir -p "$root$(dirname "$name")" && ln -s "$real" "$root$name"; }
}

with_libraries() { # FILE...
    local file library
    for file in "$@"; do
        put "$file"
        for library in $(ldd "$file" 2>/dev/null | grep -o '/[^ ]*'); do put "$library"; done
    done
}

mkdir -p "$root"/usr/{bin,sbin,lib,lib64,local/bin} "$root"/{etc,tmp,var/lib,var/log,run,root}
chmod 1777 "$root/tmp"
for folder in bin sbin lib lib64; do [[ -e $root/$folder ]] || ln -s "usr/$folder" "$root/$folder"; done
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
echo 'hosts: files dns' >"$root/etc/nsswitch.conf"
cp /etc/login.defs "$root/etc/"

programs=(sh cat groupadd id install ls mkdir touch useradd)
[[ $kind == python ]] && programs+=(env /usr/bin/python3)
for program in "${programs[@]}"; do with_libraries "$(PATH=$PATH:/usr/sbin command -v "$program")"; done
# What the binary under test is linked with.
for library in libm.so.6 libgcc_s.so.1; do put "/lib/$(uname -m)-linux-gnu/$library"; done

if [[ $kind == python ]]; then
    library=$(/usr/bin/python3 -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
    mkdir -p "$root$library"
    tar -C "$library" --exclude=__pycache__ --exclude=test --exclude='config-*' --exclude=idlelib --exclude=ensurepip -c . | tar -C "$root$library" -x
    for extension in "$library"/lib-dynload/{_hashlib,_json,_ssl,zlib,_bz2,_lzma}*.so; do
        [[ -e $extension ]] && with_libraries "$extension"
    done
fi
