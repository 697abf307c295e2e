"""The maps from error codes to HTTP and to advice for agents."""

import pytest

from strongroom.errors import all_errors
from strongroom.servers.http import HTTP_STATUS, error_response, public_error
from strongroom.servers.mcp import ADVICE, tool_error

ERRORS = all_errors()


def test_both_maps_are_total_and_hold_nothing_else():
    assert set(HTTP_STATUS) == set(ERRORS)
    assert set(ADVICE) == set(ERRORS)


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_an_http_error_has_a_sane_status_and_the_one_form(code):
    error = ERRORS[code]("message of mine /srv/secret/path")
    status, headers, body = error_response(error)
    assert 400 <= status <= 599 and body.startswith(b'{"error":{')
    assert (b"www-authenticate" in dict(headers)) == (status == 401)


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_faults_of_the_server_do_not_show_their_own_message(code):
    """A path of the host may stand in the message of a server-side fault: it goes to the log, not out."""
    error = ERRORS[code]("message of mine /srv/secret/path")
    if HTTP_STATUS[code] >= 500:
        assert "/srv/secret" not in str(public_error(error)) and public_error(error)["message"]
        assert "/srv/secret" not in str(tool_error(error).model_dump())
    else:
        assert public_error(error)["message"] == error.message


@pytest.mark.parametrize("code", sorted(ERRORS))
def test_a_tool_error_is_marked_and_carries_code_and_advice(code):
    result = tool_error(ERRORS[code]())
    assert result.is_error and result.structured_content["error"]["code"] == code
    assert result.structured_content["error"]["next"] and result.content[0].text.startswith(code + ": ")
