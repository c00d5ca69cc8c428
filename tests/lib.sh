# shellcheck shell=bash disable=SC2034
# What tests/demo and tests/run share: packages of Debian, and a Rust that is new enough. Sourced, never run.

say() { printf '\033[1m%s\033[0m\n' "$*" >&2; }
die() { printf '%s\n' "$*" >&2; exit 1; }

# need PACKAGE...: installs what is missing, and says what that is. Silent and without apt when all is there.
need() {
	local missing=() had sudo=
	for package in "$@"; do
		# A line for each architecture.
		dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
	done
	[ ${#missing[@]} -gt 0 ] || return 0
	command -v apt-get >/dev/null || die "These Debian packages are needed, and there is no apt-get: ${missing[*]}"
	if [ "$(id -u)" != 0 ]; then
		command -v sudo >/dev/null || die "As root, please: apt-get install ${missing[*]}"
		sudo=sudo
	fi
	say "Installing from Debian: ${missing[*]}"
	had=$(systemctl list-unit-files 2>/dev/null || true)
	# An old rustc stands in the way of rustc-web: --no-remove asks instead of taking it away.
	$sudo apt-get update -qq || die "apt-get update failed: is the network there?"
	$sudo env DEBIAN_FRONTEND=noninteractive \
		apt-get install -qq -y --no-install-recommends --no-remove "${missing[@]}" >/dev/null ||
		die "apt-get could not install: ${missing[*]}"
	# We need the programs, not services of theirs beside ours: leave the machine as it was.
	for service in icecast2 mosquitto nginx tinyproxy; do
		case " ${missing[*]} " in *" $service "*) ;; *) continue ;; esac
		case "$had" in *"$service.service"*) continue ;; esac
		if [ -d /run/systemd/system ]; then $sudo systemctl disable --now --quiet "$service" || true; fi
	done
}

# rust_is_enough: is the cargo in PATH at least the rust-version of Cargo.toml, and rustc too?
rust_is_enough() {
	local wanted tool has
	wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
	for tool in cargo rustc; do
		has=$("$tool" --version 2>/dev/null | awk '{ print $2 }') || return 1
		[ -n "$has" ] && [ "$(printf '%s\n' "$wanted" "$has" | sort -V | head -n 1)" = "$wanted" ] || return 1
	done
}

# need_rust: an installed toolchain if it is new enough, else Debian's.
need_rust() {
	PATH="$PATH:${CARGO_HOME:-$HOME/.cargo}/bin"
	rust_is_enough && return
	need ca-certificates rustc-web cargo-web
	PATH="/usr/bin:$PATH" # before an older one elsewhere
	rust_is_enough || die "No Rust that is new enough (see rust-version in Cargo.toml). Install one from https://rustup.rs"
}

# What the workspace compiles with: a C compiler (SQLite, zstd, aws-lc), cmake (libopus), ALSA's headers (cpal).
build_packages=(gcc libc6-dev make cmake pkg-config libasound2-dev)
# What the tunes are rendered with.
tune_packages=(abcmidi fluidsynth fluid-soundfont-gm flac)
