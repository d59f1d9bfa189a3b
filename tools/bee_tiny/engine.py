"""bee-tiny as it is shipped, run by llama.cpp: greedy answers, and its tokens."""

import json
import urllib.request
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import xllamacpp

SHIPPED: Final = Path(__file__).resolve().parents[2] / "rbee" / "models" / "bee_tiny"
MODEL_FILE: Final = SHIPPED / "bee-tiny.gguf"
PARALLEL: Final = 8
Message = dict[str, str]


class Bee:
    """A loaded model. Ends with the process."""

    def __init__(self, path: Path = MODEL_FILE, threads: int = 2) -> None:
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(path)
        parameters.n_ctx = 2048 * PARALLEL
        parameters.n_parallel = PARALLEL
        parameters.cpuparams.n_threads = threads
        parameters.verbosity = -1
        parameters.use_jinja = True
        self._server = xllamacpp.Server(parameters)

    def answer(self, messages: list[Message], max_tokens: int = 64) -> dict[str, Any]:
        """The first choice of a chat completion at temperature 0."""
        reply = self._server.handle_chat_completions(
            {
                "messages": messages,
                "max_tokens": max_tokens,
                "temperature": 0,
                "cache_prompt": False,
            }
        )
        if "choices" not in reply:
            raise RuntimeError(f"expected a completion, got {reply}")
        choice: dict[str, Any] = reply["choices"][0]
        return choice

    def answers(self, questions: Iterable[str], max_tokens: int = 64) -> list[str]:
        """The answers to single questions, in their order."""

        def ask(question: str) -> str:
            choice = self.answer([{"role": "user", "content": question}], max_tokens)
            return str(choice["message"]["content"])

        with ThreadPoolExecutor(PARALLEL) as threads:
            return list(threads.map(ask, questions))

    def tokens(self, text: str) -> list[int]:
        """How llama.cpp splits a text, special tokens included."""
        body = json.dumps({"content": text, "parse_special": True, "add_special": False})
        request = urllib.request.Request(  # the library's own loopback server
            f"{self._server.listening_address}/tokenize",
            body.encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as reply:
            tokens: list[int] = json.load(reply)["tokens"]
        return tokens
