#!/bin/bash
# Installs the system packages that the build and the tests need and that are missing.
#
# As root or through sudo, with apt-get; where that cannot be done, one line says which command would do it.
# Called by: the Makefile, once for each change of this file.
set -euo pipefail

# a command (or file, if it has a slash) that proves the package is there, and the package
needed=(
    gcc gcc
    make make
    nasm nasm
    objcopy binutils
    qemu-system-x86_64 qemu-system-x86
    qemu-img qemu-utils
    nbdkit nbdkit
    /usr/sbin/nginx nginx-light
    gdb gdb
    git git
    dpkg-source dpkg-dev
    xz xz-utils
)

missing=()
for ((i = 0; i < ${#needed[@]}; i += 2)); do
    command -v "${needed[i]}" >/dev/null || missing+=("${needed[i + 1]}")
done
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
python3 -c 'import sysconfig, pathlib; raise SystemExit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' \
    2>/dev/null || missing+=(python3-dev)
[[ -e /usr/include/stdio.h ]] || missing+=(libc6-dev)

[[ ${#missing[@]} -eq 0 ]] && exit 0

install="apt-get install -y --no-install-recommends ${missing[*]}"
give_up() {
    echo "Missing packages. Install them with:  sudo $install" >&2
    exit 1
}
command -v apt-get >/dev/null || give_up
if [[ $(id -u) -eq 0 ]]; then
    as_root=()
elif sudo -n true 2>/dev/null || { command -v sudo >/dev/null && [[ -t 0 ]]; }; then
    as_root=(sudo) # without a terminal it could not ask for a password
else
    give_up
fi
echo "Installing: ${missing[*]}" >&2
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get update -q >&2 || give_up
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive $install >&2 || give_up
