# Sourced by the scripts beside it. Makes the virtual environment of this checkout, once.
#
# prepare_environment EXTRAS   installs memplan with those extras ("" for none) into .venv, unless that was done already
#                              with the same pyproject.toml; afterwards $environment/bin holds its commands.
#
# PYTHON names the interpreter to start from (python3).

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd -P)
environment="$root/.venv"

fail() {
    printf '%s: %s\n' "$(basename -- "$0")" "$1" >&2
    exit 2
}

prepare_environment() {
    extras=$1
    base=${PYTHON:-python3}
    command -v "$base" >/dev/null 2>&1 || fail "no $base here: install Python 3.11 or newer, or set PYTHON to one"
    version=$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || fail "$base does not run"
    "$base" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$base is Python $version, memplan needs 3.11 or newer: set PYTHON to one"

    # What is installed follows from these; the folder too, since the installed package points into it.
    wanted="$version $root $(cksum <"$root/pyproject.toml")"
    stamp="$environment/.memplan-${extras:-none}"
    for done in "$stamp" "$environment/.memplan-test,tpu,rl"; do
        if [ -f "$done" ] && [ "$(cat "$done")" = "$wanted" ]; then
            return
        fi
    done

    if [ "$(cat "$environment/.memplan-python" 2>/dev/null)" != "$version $root" ]; then
        "$base" -c 'import ensurepip, venv' 2>/dev/null ||
            fail "$base has no venv module: install it (on Debian and Ubuntu: apt-get install python$version-venv)"
        echo "Creating .venv with Python $version" >&2
        "$base" -m venv --clear "$environment" || fail "cannot create $environment"
        printf '%s' "$version $root" >"$environment/.memplan-python"
    fi
    echo "Installing memplan${extras:+ [$extras]} and what it needs into .venv (once, a minute or two)" >&2
    # Of what is installed, most is never imported: what is, Python translates to bytecode when it is.
    "$environment/bin/python" -m pip install --quiet --no-compile --disable-pip-version-check \
        --editable "$root${extras:+[$extras]}" || fail "the installation failed"
    # Without a cache this brings nothing, and each command says so itself.
    "$environment/bin/python" -P -m memplan.cli.preparation ||
        echo "The inner loops could not be compiled: the first plan takes longer" >&2
    printf '%s' "$wanted" >"$stamp"
}
