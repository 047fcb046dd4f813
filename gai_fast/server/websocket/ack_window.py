"""The window of a client that acknowledges events: the bytes that it may get beyond the last acknowledged one.

Sans-IO: it counts bytes and numbers of events, and holds none of them.
"""

from __future__ import annotations

from gai_fast.server.limits import LIMITS


class AckWindow:
    """The window of one stream.

    What was sent before the first acknowledgement counts too, so places are noted from the beginning. Of more than
    `limits.ack_marks` places every second one is forgotten: an acknowledgement then counts for fewer bytes than it
    might, never for more.

    Args:
        size: Bytes that may be unacknowledged.

    Attributes:
        size: Bytes that may be unacknowledged; may be changed until something is sent.
        is_used: The client has acknowledged an event; before that, nothing is bounded.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._sent = 0
        self._acked = 0
        self._acked_seq = 0
        self._marks: list[tuple[int, int]] = []  # number of an event, bytes sent up to its end
        self.is_used = False

    def note_sent(self, last_seq: int, size: int) -> None:
        """Counts bytes that have been sent.

        Args:
            last_seq: The number of the last event in them.
            size: Their number.
        """
        self._sent += size
        if last_seq <= self._acked_seq:
            self._acked = self._sent
            return
        marks = self._marks
        marks.append((last_seq, self._sent))
        if len(marks) > LIMITS.ack_marks:
            del marks[:-1:2]

    def acknowledge(self, seq: int) -> bool:
        """Takes the number of the last event that the client has, or will take.

        Args:
            seq: The number. A number not higher than before changes nothing.

        Returns:
            Whether it is higher.
        """
        self.is_used = True
        if seq <= self._acked_seq:
            return False
        self._acked_seq = seq
        done = 0
        for number, sent in self._marks:
            if number > seq:
                break
            self._acked = sent
            done += 1
        del self._marks[:done]
        return True

    def may_send(self, last_seq: int, size: int) -> bool:
        """Returns whether these bytes may be sent now.

        Args:
            last_seq: The number of the last event in them.
            size: Their number.
        """
        return not self.is_used or last_seq <= self._acked_seq or self._sent - self._acked + size <= self.size

    @property
    def is_empty(self) -> bool:
        """Whether everything is acknowledged: a single event may then be sent, however long it is."""
        return self._sent == self._acked

    @property
    def is_full(self) -> bool:
        """Whether not even one more byte may be sent beyond what is acknowledged."""
        return self.is_used and self._sent - self._acked >= self.size
