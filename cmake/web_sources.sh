#!/usr/bin/env bash
# Fetches the sources of Dear ImGui and zstd, which the viewer for the browser is built from, as Debian has
# them: from the same archive as the machine's packages, through a list of sources made for the time of it.
# Usage: web_sources.sh FOLDER, which then holds a folder of each.
set -euo pipefail
folder=$1
! ls "$folder"/*/imgui.h "$folder"/*/lib/zstd.h >/dev/null 2>&1 || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/parts" "$work/lists/partial" "$folder"
for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
  [ -e "$list" ] || continue
  case $list in
    *.sources) sed 's/^Types:.*/Types: deb-src/' "$list" ;;
    *) sed -n 's/^deb /deb-src /p' "$list" ;;
  esac > "$work/parts/$(basename "$list")"
done
. /etc/os-release
apt=(apt-get -qq -o "Dir::Etc::sourcelist=/dev/null" -o "Dir::Etc::sourceparts=$work/parts"
  -o "Dir::State::lists=$work/lists" -o "APT::Sandbox::User=root" -o "Acquire::Retries=3")
# a list that is not Debian's may fail: what counts is whether the sources come
"${apt[@]}" update || true
cd "$work"
for package in imgui libzstd; do
  # of the release itself first: its security updates may be gone from a mirror
  "${apt[@]}" source --download-only "$package/${VERSION_CODENAME:-}" >"$work/log" 2>&1 ||
    "${apt[@]}" source --download-only "$package" >"$work/log" 2>&1 || {
    cat "$work/log" >&2
    echo "fathom: the sources of $package cannot be fetched; put them into $folder by hand" >&2
    exit 1
  }
done
for archive in *.orig.tar.*; do
  case $archive in *.asc) ;; *) tar -xf "$archive" -C "$folder" ;; esac
done
ls "$folder"/*/imgui.h "$folder"/*/lib/zstd.h >/dev/null
