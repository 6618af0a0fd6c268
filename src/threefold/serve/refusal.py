"""How the service says no: one table of codes, one form of answer.

{"error": {"code": "too_large", "message": "a.jpg: ..."}, "request_id": "..."}
"""

from collections.abc import Mapping

from starlette.responses import JSONResponse

CODES: dict[str, tuple[int, str]] = {
    "unauthorised": (401, "the bearer key is missing or wrong"),
    "not_found": (404, "nothing is at this address"),
    "method_not_allowed": (405, "the address takes other methods"),
    "too_slow": (408, "the body stopped arriving"),
    "too_large": (413, "a photo or the whole body is beyond its limit in bytes or pixels"),
    "too_many": (413, "more photos than one request may hold"),
    "unsupported_type": (415, "not a type that is read, by its content"),
    "invalid": (422, "the request is not of the documented form"),
    "unreadable": (422, "a photo is cut off or damaged"),
    "rate_limited": (429, "one client asks too often"),
    "internal": (500, "a fault of the service; the log has it under the request id"),
    "overloaded": (503, "the queue is full, or the service is starting or ending"),
}
"""Code -> HTTP status, and what it means."""
# Names in a message come from the client; an answer does not repeat them at length.
MESSAGE_LENGTH = 500


class Refusal(Exception):
    """A request, or one photo of it, that is answered with an error.

    code: a key of CODES. message: one line for a person. status: where another one than the code's is meant. headers:
    sent with the answer.
    """

    def __init__(
        self, code: str, message: str, *, status: int | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        line = " ".join("".join(letter if letter.isprintable() else " " for letter in message).split())
        self.code = code
        self.message = line if len(line) <= MESSAGE_LENGTH else f"{line[: MESSAGE_LENGTH - 3]}..."
        self.status = CODES[code][0] if status is None else status
        self.headers = dict(headers or {})
        super().__init__(self.message)

    def body(self) -> dict[str, str]:
        """{"code", "message"}, as it also stands in the place of a photo that was not read."""
        return {"code": self.code, "message": self.message}


def busy(message: str, seconds: float = 1) -> Refusal:
    """The 503 of a service that has too much to do, with when to ask again."""
    return Refusal("overloaded", message, headers={"Retry-After": f"{max(1, round(seconds))}"})


def error_response(refusal: Refusal, request_id: str) -> JSONResponse:
    """The refusal as the answer of a whole request."""
    return JSONResponse({"error": refusal.body(), "request_id": request_id}, refusal.status, headers=refusal.headers)
