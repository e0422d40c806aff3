# shellcheck shell=bash
# The toolbox: a Debian 13 root in a cache folder, made once by debootstrap, in which ./dev runs its commands on every
# other Debian or Ubuntu. Sourced by ./dev; sets nothing but functions and the readonly names below.
#
#   absent --make (lock, temporary name)--> made --probe every package--> stamped --mv--> in place
#   in place --a probe is missing--> set aside, removed, made again
#
# Needs root, debootstrap (installed when missing) and util-linux. Leaves no mount behind: what is mounted lives in a
# private mount namespace that ends with the last process in it.

TOOLBOX_CACHE=$(readlink -m -- "${OCTET_CACHE:-/var/cache/octet}")
readonly TOOLBOX_CACHE
readonly TOOLBOX_SUITE=trixie
readonly TOOLBOX_LOG="$TOOLBOX_CACHE/toolbox.log"
# Part of the key: raise it when the way the toolbox is made changes.
readonly TOOLBOX_FORMAT=1
readonly TOOLBOX_STAMP=.octet-toolbox
readonly TOOLBOX_NEEDS_MB=4000
readonly TOOLBOX_KEEP_DAYS=14
# The toolbox's own folders. Every other folder at the top of the host belongs to the caller and is seen inside.
readonly TOOLBOX_SYSTEM_DIRS=' usr bin sbin etc var proc sys dev run boot lost+found '

say() { printf 'octet: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Starts a command in a process group of its own: wait_group waits for it, end_groups ends it.
start_group() {
  set -m
  "$@" &
  group=$!
  set +m
}

# Waits for what start_group started and returns its exit code. Bash runs a trap between commands; of a signal that comes
# right before `wait` it would know when the group has ended, so that it waits for the group only once this has.
wait_group() {
  while kill -0 "$group" 2> /dev/null; do sleep 0.2; done
  wait "$group"
}

# Ends the groups that this shell has started: SIGTERM until nothing is left of them, as what has only just been forked loses
# one, and SIGKILL after a hundred. For traps.
end_groups() {
  local running tries
  for running in $(jobs -p); do
    for ((tries = 0; tries < 100; ++tries)); do
      kill -TERM -- "-$running" 2> /dev/null || continue 2
      sleep 0.1
    done
    kill -KILL -- "-$running" 2> /dev/null || true
  done
}

# Prints the packages of the named groups, one per line, comments dropped.
toolbox_packages() {
  local group
  for group in "$@"; do
    sed -e 's/#.*//' -e 's/[[:space:]]*$//' -e '/^$/d' "$OCTET_ROOT/deploy/toolbox/packages/$group"
  done
}

# Prints what names a toolbox: the same package lists give the same name.
toolbox_key() {
  { echo "$TOOLBOX_FORMAT $TOOLBOX_SUITE"; toolbox_packages "$@" | sort; } | sha256sum | cut -c1-12
}

toolbox_dir() { echo "$TOOLBOX_CACHE/toolbox-$(toolbox_key build test)"; }

# Succeeds when toolbox $1 is whole: its stamp is complete, and of every package that was installed the file that the
# stamp names is still there.
toolbox_intact() {
  local root=$1 probe last=
  [[ -f $root/$TOOLBOX_STAMP ]] || return 1
  while IFS= read -r probe; do
    last=$probe
    [[ $probe == end || -s $root$probe ]] || return 1
  done < "$root/$TOOLBOX_STAMP"
  [[ $last == end ]]
}

# Writes the stamp of toolbox $1: for every installed package one regular, non-empty file, then `end`.
toolbox_write_stamp() {
  local root=$1 list file candidate
  for list in "$root"/var/lib/dpkg/info/*.list; do
    candidate=
    while IFS= read -r file; do
      case $file in
        /usr/share/doc/* | /usr/share/man/* | /usr/share/locale/* | /etc/*) continue ;;
      esac
      [[ -f $root$file && ! -L $root$file && -s $root$file ]] && candidate=$file && break
    done < "$list"
    [[ -n $candidate ]] && printf '%s\n' "$candidate"
  done > "$root/$TOOLBOX_STAMP.new"
  echo end >> "$root/$TOOLBOX_STAMP.new"
  mv "$root/$TOOLBOX_STAMP.new" "$root/$TOOLBOX_STAMP"
}

toolbox_logged() { "$@" >> "$TOOLBOX_LOG" 2>&1 < /dev/null; }

# Runs one step of the making: one line with its time, everything it prints to the log, the log's tail if it fails.
toolbox_step() {
  local text=$1 start=$SECONDS status=0
  shift
  [[ -t 2 ]] && printf 'octet:   %s ...\r' "$text" >&2
  printf '\n== %s\n' "$text" >> "$TOOLBOX_LOG"
  start_group toolbox_logged "$@"
  wait_group || status=$?
  if ((status == 0)); then
    printf 'octet:   %s (%d s)   \n' "$text" $((SECONDS - start)) >&2
    return
  fi
  printf 'octet:   %s: failed; the end of %s:\n' "$text" "$TOOLBOX_LOG" >&2
  tail -n 25 "$TOOLBOX_LOG" | sed 's/^/    /' >&2
  exit 1
}

# Takes the lock that every change to the cache folder is made under. Held until toolbox_unlock or exit.
toolbox_lock() {
  exec {toolbox_lock_fd}> "$TOOLBOX_CACHE/toolbox.lock"
  flock --nonblock "$toolbox_lock_fd" && return
  say "waiting for another ./dev that is making the toolbox"
  flock "$toolbox_lock_fd"
}

toolbox_unlock() { exec {toolbox_lock_fd}>&-; }

# Removes tree $1, unless something is mounted in it: then its content is somebody else's.
toolbox_remove() {
  local dir=$1
  [[ -e $dir ]] || return 0
  if awk -v d="$dir/" 'index($5 "/", d) == 1 { found = 1 } END { exit !found }' /proc/self/mountinfo; then
    say "left $dir alone: something is mounted in it"
    return 0
  fi
  rm -rf --one-file-system -- "$dir"
}

# Succeeds when a process has $1 as its root. One comparison per process, in bash itself: there may be thousands.
toolbox_in_use() {
  local link
  for link in /proc/[0-9]*/root; do
    [[ $link -ef $1 ]] && return 0
  done
  return 1
}

# Removes toolboxes of other package lists that nobody has used for a while.
toolbox_prune() {
  local stamp dir
  while IFS= read -r stamp; do
    dir=${stamp%/*}
    [[ $dir == "$1" ]] || toolbox_in_use "$dir" || toolbox_remove "$dir"
  done < <(find "$TOOLBOX_CACHE" -mindepth 2 -maxdepth 2 -path "*/toolbox-*/$TOOLBOX_STAMP" \
    -mtime "+$TOOLBOX_KEEP_DAYS" 2> /dev/null)
}

# The host's apt may go through a proxy; debootstrap and the toolbox's apt then have to as well.
toolbox_use_host_proxy() {
  local proxy=
  [[ -z ${http_proxy:-} ]] || return 0
  eval "$(apt-config shell proxy Acquire::http::Proxy)"
  [[ -z $proxy || $proxy == DIRECT ]] || export http_proxy=$proxy
}

toolbox_install_debootstrap() {
  local needed=(debootstrap)
  # shellcheck source=/dev/null
  [[ $(. /etc/os-release && echo "$ID") == debian ]] || needed+=(debian-archive-keyring)
  apt-get update && apt-get install -y --no-install-recommends "${needed[@]}"
}

toolbox_bootstrap() {
  local root=$1 source=()
  # A debootstrap older than the suite: every Debian since is made like sid.
  [[ -e /usr/share/debootstrap/scripts/$TOOLBOX_SUITE ]] || source=('' sid)
  unshare --mount --propagation private \
    debootstrap --variant=minbase --include=ca-certificates "$TOOLBOX_SUITE" "$root" "${source[@]}"
}

# Tells dpkg and apt inside $1: no services, no documentation, no recommended packages, no fsync per file.
toolbox_configure() {
  local root=$1
  printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
  chmod 755 "$root/usr/sbin/policy-rc.d"
  cat > "$root/etc/dpkg/dpkg.cfg.d/octet" << 'CFG'
force-unsafe-io
force-confold
path-exclude=/usr/share/man/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/doc/*
path-include=/usr/share/doc/*/copyright
CFG
  cat > "$root/etc/apt/apt.conf.d/octet" << 'CFG'
APT::Install-Recommends "false";
Acquire::Languages "none";
Acquire::Retries "3";
CFG
  touch "$root/etc/resolv.conf" "$root/etc/hosts"
}

# Installs packages of the named groups into toolbox $1.
toolbox_install() {
  local root=$1 packages
  shift
  mapfile -t packages < <(toolbox_packages "$@")
  # shellcheck disable=SC2016  # expanded by the shell inside
  toolbox_chroot "$root" "" /bin/sh -ec '
    export DEBIAN_FRONTEND=noninteractive
    dpkg --configure -a
    apt-get update
    apt-get install -y "$@"
    apt-get clean' sh "${packages[@]}"
}

# Makes toolbox $1. Requires the lock.
toolbox_make() {
  local root=$1 making free
  say "making a Debian 13 toolbox in $TOOLBOX_CACHE (once; about two minutes)"
  free=$(df --output=avail -BM "$TOOLBOX_CACHE" | tail -n 1 | tr -dc 0-9)
  ((free >= TOOLBOX_NEEDS_MB)) ||
    die "$TOOLBOX_CACHE has $free MB free, the toolbox needs $TOOLBOX_NEEDS_MB; set OCTET_CACHE to a larger place"
  for making in "$TOOLBOX_CACHE"/making-*; do toolbox_remove "$making"; done
  making=$(mktemp -d "$TOOLBOX_CACHE/making-XXXXXX")
  chmod 755 "$making"
  # shellcheck disable=SC2064  # this folder, not a later one
  trap "toolbox_abandon '$making'; exit 130" INT
  # shellcheck disable=SC2064
  trap "toolbox_abandon '$making'; exit 143" TERM HUP
  : > "$TOOLBOX_LOG"
  toolbox_use_host_proxy
  command -v debootstrap > /dev/null || toolbox_step "installing debootstrap" toolbox_install_debootstrap
  toolbox_step "Debian 13 base system" toolbox_bootstrap "$making"
  toolbox_configure "$making"
  toolbox_step "compiler and libraries" toolbox_install "$making" build
  toolbox_step "test tools" toolbox_install "$making" test
  toolbox_write_stamp "$making"
  toolbox_intact "$making" || die "the toolbox is incomplete although every step succeeded; see $TOOLBOX_LOG"
  mv -T "$making" "$root"
  trap - INT TERM HUP
  toolbox_prune "$root"
  say "toolbox ready"
}

toolbox_abandon() {
  end_groups
  say "stopped; the half-made toolbox is removed"
  toolbox_remove "$1"
}

# Makes sure that toolbox $1 is whole, making or remaking it if not.
toolbox_ensure() {
  local root=$1 aside
  if ! toolbox_intact "$root"; then
    mkdir -p "$TOOLBOX_CACHE" 2> /dev/null || die "cannot write $TOOLBOX_CACHE; set OCTET_CACHE to a folder of yours"
    toolbox_lock
    if ! toolbox_intact "$root"; then
      if [[ -e $root ]]; then
        say "the toolbox is incomplete, making it again"
        aside=$(mktemp -d "$TOOLBOX_CACHE/making-XXXXXX")
        mv "$root" "$aside/"
      fi
      toolbox_make "$root"
    fi
    toolbox_unlock
  fi
  touch "$root/$TOOLBOX_STAMP"
}

# Adds package group $2 to toolbox $1, once.
toolbox_add_group() {
  local root=$1 group=$2 mark
  mark="$root/.octet-group-$group-$(toolbox_key "$group")"
  [[ ! -e $mark ]] || return 0
  toolbox_lock
  if [[ ! -e $mark ]]; then
    say "adding the packages of '$group' to the toolbox"
    : > "$TOOLBOX_LOG"
    toolbox_use_host_proxy
    toolbox_step "packages of '$group'" toolbox_install "$root" "$group"
    toolbox_write_stamp "$root"
    touch "$mark"
  fi
  toolbox_unlock
}

# Becomes the command "${@:3}" in folder $2 inside toolbox $1; with an empty folder, without the caller's files and in
# the toolbox's root. Exec all the way: same process, so signals, exit code and standard input are the command's own.
toolbox_enter() {
  exec unshare --mount --propagation private \
    bash -c 'source "$1" && shift && toolbox_inside "$@"' octet "$OCTET_ROOT/deploy/toolbox/toolbox.sh" "$@"
}

# toolbox_enter for one command of many.
toolbox_chroot() { (toolbox_enter "$@"); }

# Prints the caller's folders at the top of the host, the one that holds the cache first: bound later, its copy would
# repeat the mounts made before.
toolbox_caller_dirs() {
  local dir first=${TOOLBOX_CACHE#/}
  first=${first%%/*}
  for dir in "/$first" /*; do
    [[ -d $dir && ! -L $dir ]] || continue
    [[ $TOOLBOX_SYSTEM_DIRS == *" ${dir#/} "* || $dir == /lib* ]] || echo "$dir"
  done | awk '!seen[$0]++'
}

# Binds folder $2 of the host into toolbox $1 where it lies under one of the toolbox's own folders. A folder in which
# the toolbox has files stays the toolbox's.
toolbox_bind_hidden() {
  local root=$1 dir=$2 top=${2#/}
  [[ $TOOLBOX_SYSTEM_DIRS == *" ${top%%/*} "* && $top == */* ]] || return 0
  [[ -z $(ls -A "$root$dir" 2> /dev/null) ]] || return 0
  mkdir -p "$root$dir" && mount --rbind "$dir" "$root$dir"
}

# Second half of toolbox_enter, in the private mount namespace: mounts, then becomes the command.
toolbox_inside() {
  local root=$1 dir=$2 file
  shift 2
  mount --rbind "$root" "$root" || die "cannot mount: is this a container without CAP_SYS_ADMIN? (then use the Dockerfile)"
  if [[ -n $dir ]]; then
    while IFS= read -r file; do
      mkdir -p "$root$file" && mount --rbind "$file" "$root$file" || die "cannot show $file to the toolbox"
    done < <(toolbox_caller_dirs)
    mkdir -p "$root$TOOLBOX_CACHE" && mount --bind "$TOOLBOX_CACHE" "$root$TOOLBOX_CACHE" ||
      die "cannot show $TOOLBOX_CACHE to the toolbox"
    toolbox_bind_hidden "$root" "$OCTET_ROOT"
    toolbox_bind_hidden "$root" "$dir"
  fi
  for file in proc sys dev; do
    mount --rbind "/$file" "$root/$file" || die "cannot show /$file to the toolbox"
  done
  # Name resolution and trust are the host's: it may have its own resolver and certificate authorities.
  for file in /etc/resolv.conf /etc/hosts /etc/ssl/certs/ca-certificates.crt; do
    [[ -s $file && -f $root$file ]] && mount --bind "$file" "$root$file"
  done
  # What names the host's own libraries would be found missing, or worse, inside.
  unset LD_PRELOAD LD_LIBRARY_PATH LIBRARY_PATH CPATH C_INCLUDE_PATH CPLUS_INCLUDE_PATH PKG_CONFIG_PATH PYTHONHOME
  export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
  unset LC_ALL LANGUAGE
  # shellcheck disable=SC2016  # expanded by the shell inside
  exec chroot "$root" /bin/bash -c 'cd -- "$1" && shift && exec "$@"' octet "${dir:-/}" "$@"
}
