"""As much of the `tokenizers` library as the adapter uses: byte-level, one token a byte."""

# In the manner of what it stands for, which has no types.
# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201, ANN204, ANN205, PTH123

import json
import re
from types import SimpleNamespace


class Tokenizer:
    """Reads the byte-level tokenizer.json of the tests."""

    def __init__(self, document):
        self.ids = document["model"]["vocab"]
        self.added = {each["content"]: each["id"] for each in document["added_tokens"]}
        self.encode_special_tokens = False
        self.letters = [letter for letter in self.ids if len(letter) == 1]

    @staticmethod
    def from_file(path):
        with open(path, encoding="utf-8") as file:
            return Tokenizer(json.load(file))

    def id_to_token(self, token_id):
        texts = {value: key for key, value in (self.ids | self.added).items()}
        return texts.get(token_id)

    def encode(self, text, add_special_tokens=True):
        if self.encode_special_tokens or not self.added:
            parts = [text]
        else:
            parts = re.split("(" + "|".join(map(re.escape, self.added)) + ")", text)
        ids = []
        for part in parts:
            special = self.added.get(part) if not self.encode_special_tokens else None
            ids += [special] if special is not None else list(part.encode())
        return SimpleNamespace(ids=ids)
