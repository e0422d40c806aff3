#!/bin/sh
# Assembles the root of the container image: a binary, the shared libraries it loads and nothing that could be trimmed.
#
#   assemble.sh BINARY ROOT
#
# There is no shell and no package manager in it. Every package a library comes from leaves its licence in
# /usr/share/doc, as Debian's packages do. Requires Debian and the packages the binary was linked with.
set -eu

binary=$1
root=$2
mkdir -p "$root/usr/bin" "$root/usr/share/doc" "$root/etc/ssl/certs" "$root/models" "$root/tmp" "$root/var/tmp"
chmod 1777 "$root/tmp" "$root/var/tmp"
for link in bin lib lib64; do
  mkdir -p "$root/usr/$link"
  ln -sfn "usr/$link" "$root/$link"
done

install -m 755 "$binary" "$root/usr/bin/octet"
strip --strip-unneeded "$root/usr/bin/octet"

# The libraries under the paths the loader looks for them, and the loader itself. Name resolution is loaded by glibc
# at run time: it is part of libc, the libraries beside it serve old binaries only.
ldd "$binary" > "$root/libraries"
if grep 'not found' "$root/libraries" >&2; then exit 1; fi
sed -n -e 's|.* => \(/[^ ]*\) .*|\1|p' -e 's|^[[:space:]]*\(/[^ ]*\) (.*|\1|p' "$root/libraries" | sort -u |
  while read -r library; do
    case $library in
      /usr/*) target=$library ;;
      *) target=/usr$library ;;
    esac
    mkdir -p "$root${target%/*}"
    cp -L "$library" "$root$target"
    package=$(dpkg -S "$(readlink -f "$library")" 2> /dev/null | cut -d: -f1)
    if [ -f "/usr/share/doc/$package/copyright" ]; then
      mkdir -p "$root/usr/share/doc/$package"
      cp -L "/usr/share/doc/$package/copyright" "$root/usr/share/doc/$package/"
    fi
  done
rm "$root/libraries"
# Chart.js is part of the binary.
mkdir -p "$root/usr/share/doc/libjs-chart.js"
cp -L /usr/share/doc/libjs-chart.js/copyright "$root/usr/share/doc/libjs-chart.js/"

# Which letters are each other's upper and lower case.
mkdir -p "$root/usr/lib/locale/C.utf8"
cp -L /usr/lib/locale/C.utf8/LC_CTYPE "$root/usr/lib/locale/C.utf8/"

cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
echo 'hosts: files dns' > "$root/etc/nsswitch.conf"
echo 'octet:x:65532:65532:Octet:/:/usr/sbin/nologin' > "$root/etc/passwd"
echo 'octet:x:65532:' > "$root/etc/group"
