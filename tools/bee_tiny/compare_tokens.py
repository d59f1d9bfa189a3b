"""Checks that llama.cpp and `tokenizers` split the same texts into the same tokens, and back."""

# ruff: noqa: E501, RUF001 - tables of words read better wide

import argparse
import sys
from pathlib import Path
from random import Random

from chat import SPECIAL_TOKENS
from corpus import sample
from engine import MODEL_FILE, Bee
from tokenizers import Tokenizer

COUNT = 600
PIECES = (
    *"abcxyzABCXYZ0123456789", *" \t\n\r", "  ", "   ", "\n\n", " \n ", "\t\t", "\u00a0", "\u3000", "\u200d",
    *".,:;!?-_'\"()[]{}<>/\\|@#$%^&*+=~`", "'s", "'re", "n't", "’", "…", "—", "ä", "ß", "é", "Å", "ñ", "œ",
    "é", "жук", "мёд", "蜂", "蜜蜂", "はち", "꿀벌", "نحلة", "דבורה", "मधुमक्खी", "🐝", "👩‍🚀", "🇳🇴", "½", "²", "٣", "Ⅷ",
    "hello", "World", "bee", "honey", "don't", "3.14", "1,000", "http://x.y/z?a=b", "snake_case", "\u0000", "\u001b",
)  # fmt: skip


def texts() -> list[str]:
    """Training texts, and mixtures of all that is awkward."""
    rng = Random(7)
    made = ["".join(text for text, _ in sample(rng))[:400] for _ in range(COUNT // 4)]
    mixed = ["".join(rng.choices(PIECES, k=rng.randint(1, 24))) for _ in range(COUNT - len(made))]
    return ["", " ", "\n", *SPECIAL_TOKENS, *made, *mixed]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=MODEL_FILE)
    arguments = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(arguments.model.parent / "tokenizer.json"))
    bee, wrong = Bee(arguments.model), 0
    for text in texts():
        ours = tokenizer.encode(text, add_special_tokens=False).ids
        theirs = bee.tokens(text)
        back = tokenizer.decode(ours, skip_special_tokens=False)
        if ours != theirs or back != text:
            wrong += 1
            print(f"{text!r}: tokenizers {ours}, llama.cpp {theirs}, decoded {back!r}")
    print(f"{len(texts()) - wrong} of {len(texts())} texts split alike")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
