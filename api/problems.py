"""Errors as `application/problem+json` (RFC 9457): one form for every answer that is no success."""

from http import HTTPStatus
from typing import Final

import msgspec
from flask import Response

PROBLEM_TYPE: Final = "application/problem+json"


class ProblemDocument(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong: *title* is the status in words, *detail* says what to do about it."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class Problem(Exception):
    """Ends a request with an error of its own. *detail* is shown to whoever asked: where, what, what to do."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        """A problem with *headers* (`retry_after="5"`) beside it."""
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = {name.replace("_", "-").title(): value for name, value in headers.items()}


def bad_request(detail: str) -> Problem:
    """400: the request itself is wrong."""
    return Problem(HTTPStatus.BAD_REQUEST, detail)


def not_found(detail: str) -> Problem:
    """404: nothing is known by that name."""
    return Problem(HTTPStatus.NOT_FOUND, detail)


def gone(detail: str) -> Problem:
    """410: a cursor or id of another epoch, or history that was cut."""
    return Problem(HTTPStatus.GONE, detail)


def problem_response(problem: Problem) -> Response:
    """The answer that tells *problem*."""
    document = ProblemDocument(
        title=HTTPStatus(problem.status).phrase, status=problem.status, detail=problem.detail
    )
    response = Response(msgspec.json.encode(document), status=problem.status, content_type=PROBLEM_TYPE)
    for name, value in problem.headers.items():
        response.headers[name] = value
    return response
