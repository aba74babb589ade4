"""Turns Debian's package descriptions into texts with one of 14 topics: 2,000 rows to train on and 1,000 to test with.

Usage: python3 debian_topics.py FOLDER_WITH_Packages_AND_Translation-en OUT

The text is the one-line description and the long one, with white space collapsed and cut at 400 characters; the topic is the package's section. All packages of a
source go to one side, equal texts are kept once, and a source gives three packages at most. The choice is by SHA-256 of names, so that an index gives the same rows anywhere.
"""
import collections
import hashlib
import json
import os
import re
import sys

TOPICS = {"database", "editors", "electronics", "fonts", "games", "graphics", "hamradio", "mail", "math", "net", "science", "sound", "text", "video"}
SIZES = {"train": 2000, "test": 1000}


def stanzas(path):
    """Each paragraph of a Debian index as a dictionary; continued lines keep their line break."""
    with open(path, encoding="utf-8", errors="replace") as lines:
        stanza, key = {}, None
        for line in lines:
            line = line.rstrip("\n")
            if not line.strip():
                if stanza:
                    yield stanza
                stanza, key = {}, None
            elif line[0] in " \t":
                if key:
                    stanza[key] += "\n" + line
            else:
                key, _, value = line.partition(":")
                stanza[key] = value.strip()
        if stanza:
            yield stanza


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()


def read_rows(folder):
    long = {(s["Package"], s["Description-md5"]): s["Description-en"] for s in stanzas(os.path.join(folder, "Translation-en")) if "Description-en" in s}
    seen = set()
    for s in stanzas(os.path.join(folder, "Packages")):
        if s.get("Section") not in TOPICS:
            continue
        first, _, rest = long.get((s["Package"], s.get("Description-md5")), s.get("Description", "")).partition("\n")
        rest = re.sub(r"(^|\n) \.(?=\n|$)", "\n", rest)
        text = re.sub(r"\s+", " ", first.rstrip(". ") + ". " + rest).strip()[:400]
        if text not in seen:
            seen.add(text)
            yield {"id": s["Package"], "source": s.get("Source", s["Package"]).split(" ")[0], "label": s["Section"], "text": text}


def split(rows):
    """Sources in the order of their hashes: first those to train on, then those to test with."""
    of_source = collections.defaultdict(list)
    for row in sorted(rows, key=lambda r: (digest(r["source"]), digest(r["id"]))):
        if len(of_source[row["source"]]) < 3:
            of_source[row["source"]].append(row)
    parts, names = {name: [] for name in SIZES}, list(SIZES)
    for group in of_source.values():
        while names and len(parts[names[0]]) >= SIZES[names[0]]:
            names.pop(0)
        if not names:
            break
        part = parts[names[0]]
        part += group[: SIZES[names[0]] - len(part)]
    return parts


def main(folder, out):
    os.makedirs(out, exist_ok=True)
    for name, rows in split(read_rows(folder)).items():
        rows.sort(key=lambda r: digest("order" + r["id"]))
        with open(os.path.join(out, name + ".jsonl"), "w", encoding="utf-8", newline="\n") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(name, len(rows), file=sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
