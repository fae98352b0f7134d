"""Tokens to text while they come: no broken characters, and stop strings found as soon as they are complete."""

from collections.abc import Sequence

from nexrl.types.protocols import Tokenizer

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"


class TextStream:
    """Text of a growing token sequence, in pieces that hold whole characters only.

    A token may end inside a UTF-8 character; its piece is held back until the character is complete or `rest` is
    asked for. All pieces together equal the text of all tokens decoded at once.
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special_tokens: bool) -> None:
        self._tokenizer = tokenizer
        self._skip = skip_special_tokens
        self._ids: list[int] = []
        self._known = ""
        """Text of the part of `_ids` whose text was given out."""

    def push(self, token_id: int) -> str:
        """The text that this token completes; may be empty."""
        self._ids.append(token_id)
        text = self._decode(self._ids)
        if text.endswith(_UNFINISHED) or len(text) <= len(self._known):
            return ""
        piece = text[len(self._known) :]
        # The last token stays as context: some tokenizers drop the space before the first token they decode.
        self._ids = [token_id]
        self._known = self._decode(self._ids)
        return piece

    def rest(self) -> str:
        """What is still held back, as it is."""
        text = self._decode(self._ids)
        piece, self._known = text[len(self._known) :], text
        return piece

    def _decode(self, token_ids: Sequence[int]) -> str:
        return self._tokenizer.decode(token_ids, skip_special_tokens=self._skip)


class StopWatch:
    """Reads a sample's text as it grows and says when a stop string is complete."""

    def __init__(self, stream: TextStream, stop: Sequence[str], *, include_stop: bool) -> None:
        self._stream = stream
        self._stop = stop
        self._include = include_stop
        self._longest = max(map(len, stop))
        self.text = ""
        """Cut at the stop string once `push` said True."""

    def push(self, token_id: int, *, may_stop: bool) -> bool:
        """Read one more token. True = the text now holds a stop string; the earliest one cuts it."""
        seen = max(0, len(self.text) - self._longest + 1)
        self.text += self._stream.push(token_id)
        if not may_stop:
            return False
        found = [(self.text.find(stop, seen), stop) for stop in self._stop]
        hits = [(place, stop) for place, stop in found if place >= 0]
        if not hits:
            return False
        place, stop = min(hits)
        self.text = self.text[: place + len(stop) * self._include]
        return True

    def finish(self) -> str:
        """The whole text of a sample that ended otherwise."""
        self.text += self._stream.rest()
        return self.text
