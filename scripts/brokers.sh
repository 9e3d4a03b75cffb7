#!/usr/bin/env bash
# Gets what tests and `make broker` need to run real brokers: Java 17, Maven, Kafka's jars (into build/kafka),
# mosquitto, openssl for certificates, and systemd for its units. It installs only what is missing, from the system's packages, never asks,
# and says what it does. Exit status 1 and one line for each thing that is still missing.
set -uo pipefail
cd "$(dirname "$0")/.."
PATH=$PATH:/usr/sbin
jars=build/kafka
limit_s=300

say() { echo "brokers: $*" >&2; }
has_java() { [[ $(java -version 2>&1) =~ version\ \"([0-9]+) ]] && ((BASH_REMATCH[1] >= 17)); }
has_jars() { cmp -s tests/kafka/pom.xml "$jars/pom.xml"; }

as_root() { if ((EUID == 0)); then "$@"; else sudo -n "$@"; fi; }
apt_get() { as_root env DEBIAN_FRONTEND=noninteractive timeout "$limit_s" apt-get -qq "$@" >/dev/null 2>>"$log"; }

install() {
  command -v apt-get >/dev/null || return 1
  say "installing $* (apt-get)"
  local options=(-y --no-install-recommends)
  apt_get install "${options[@]}" "$@" || { apt_get update && apt_get install "${options[@]}" "$@"; }
}

fetch_jars() {
  say "fetching Kafka's jars with Maven into $jars, 44 MB"
  local fresh
  mkdir -p build && fresh=$(mktemp -d build/kafka.XXXXXX) || return 1
  timeout "$limit_s" mvn -q -B --strict-checksums -f tests/kafka/pom.xml dependency:copy-dependencies \
    -DoutputDirectory="$PWD/$fresh" >>"$log" 2>&1 &&
    cp tests/kafka/pom.xml "$fresh" && chmod 755 "$fresh" && rm -rf "$jars" && mv -T "$fresh" "$jars" && return
  rm -rf "$fresh"
  return 1
}

log=$(mktemp)
trap 'rm -f "$log"' EXIT
missing=()

has_java || install openjdk-17-jre-headless || install default-jre-headless
has_java || missing+=("Java 17 or newer: apt-get install openjdk-17-jre-headless")

if ! has_jars; then
  command -v mvn >/dev/null || install maven
  if command -v mvn >/dev/null; then
    fetch_jars || missing+=("Kafka's jars: mvn could not fetch them (tests/kafka/pom.xml); is there a network?")
  else
    missing+=("Maven, which fetches Kafka's jars: apt-get install maven")
  fi
fi

command -v mosquitto >/dev/null || install mosquitto
command -v mosquitto >/dev/null || missing+=("mosquitto: apt-get install mosquitto")

command -v openssl >/dev/null || install openssl
command -v openssl >/dev/null || missing+=("openssl: apt-get install openssl")

# The units are judged by systemd-analyze and booted in a container.
command -v systemd-analyze >/dev/null && command -v systemd-nspawn >/dev/null || install systemd systemd-container
command -v systemd-analyze >/dev/null || missing+=("systemd, which judges the units: apt-get install systemd")

if ((${#missing[@]})); then
  tail -n 20 "$log" >&2
  for what in "${missing[@]}"; do say "missing: $what"; done
  exit 1
fi
