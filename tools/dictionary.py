"""Turns Debian's dict-devil (The Devil's Dictionary, public domain) into prompt/completion lines.

Usage: python3 dictionary.py FOLDER_WITH_DICTD_FILES OUT

devil.dict.dz opens with any gzip reader. devil.index has one line per head-word: word, offset and length in base 64, separated by tabs.
The prose of an entry is kept, the verse and quotations behind it (indented) are not. One head-word in ten is held out, chosen by SHA-256.
"""
import gzip
import hashlib
import json
import os
import re
import sys

DIGITS = {c: i for i, c in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")}
PART = r"(?:n|adj|v|vi|vt|pp|adv|x|p|pron|prep|interj|conj|pro|pl|vb|i|t|s|auxiliary)\."
ENTRY = re.compile(r"([A-Z](?:[A-Z0-9'\-.,& ]|\(?or\b ?|\))*?)[,.]?\s*"
                   r"(" + PART + r"(?:\s?(?:[itap]|pl|pp|adj|v|n|s)\.)*(?:,? ?(?:and|or) [a-z.]+)?(?:\s?pl\.)?)\s+(.*)$", re.S)


def number(text):
    value = 0
    for c in text:
        value = value * 64 + DIGITS[c]
    return value


def bodies(folder):
    with gzip.open(os.path.join(folder, "devil.dict.dz")) as file:
        text = file.read()
    seen = set()
    with open(os.path.join(folder, "devil.index"), encoding="utf-8") as index:
        for line in index:
            word, *span = line.rstrip("\n").split("\t")
            span = tuple(map(number, span))
            if word.startswith("00database") or span in seen:
                continue
            seen.add(span)
            yield text[span[0]:sum(span)].decode("latin-1")


def joined(lines):
    out = ""
    for line in lines:
        line = " ".join(line.split())
        hyphen = re.search(r"[A-Za-z]-$", out) and not out.endswith("--")
        out += line if hyphen or not out else " " + line
    return out


def prose(body):
    kept = []
    paragraphs = [p.splitlines() for p in re.split(r"\n\s*\n", body.strip("\n")) if p.strip()]
    for i, lines in enumerate(paragraphs):
        if lines[0].startswith(" "):
            if i == 0:
                continue
            break
        kept.append(joined(lines))
    return " ".join(kept)


def main(folder, out):
    rows = []
    for body in bodies(folder):
        match = ENTRY.match(prose(body))
        if not match or len(match[3]) < 4:
            continue
        head = match[1].strip(" ,.")
        definition = " ".join(match[3].replace("{", "").replace("}", "").split())
        rows.append({"head": head, "pos": match[2], "prompt": f"Define: {head}", "completion": definition})
    rows.sort(key=lambda row: (row["head"], row["completion"]))
    heads = sorted({row["head"] for row in rows}, key=lambda head: hashlib.sha256(head.encode()).hexdigest())
    held_out = set(heads[:round(len(heads) / 10)])
    for name, wanted in (("train", False), ("heldout", True)):
        path = os.path.join(out, f"devil-{name}.jsonl")
        with open(path + ".part", "w", encoding="utf-8", newline="\n") as file:
            for row in rows:
                if (row["head"] in held_out) == wanted:
                    file.write(json.dumps(row, ensure_ascii=False) + "\n")
        os.rename(path + ".part", path)
    print(f"{len(rows)} entries, {len(held_out)} of {len(heads)} head-words held out")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
