"""The page to watch: whom it lets in, and what strangers, slow viewers and crowds cannot do to it."""

import socket
import threading
from contextlib import ExitStack, closing

import pytest
from clips import needed

cv2 = needed("cv2", "video")
from viewing import Events, ended, found, frame, get, page, shown  # noqa: E402

from clip4str.core.cli import main  # noqa: E402
from clip4str.core.errors import UsageError  # noqa: E402
from clip4str.video.options import listening_address  # noqa: E402
from clip4str.video.view import View, handler  # noqa: E402
from clip4str.video.view.access import VARIABLE  # noqa: E402

TOKEN = "correct-horse-battery-staple"
PATHS = ("/", "/view.js", "/events", "/picture?source=0", "/words.csv", "/crop?source=0&track=1", "/nothing")


@pytest.fixture
def view():
    with page() as view:
        view.show(0, frame(0), shown())
        view.write(ended(1))
        yield view


@pytest.fixture
def guarded():
    with page(address="0.0.0.0:0") as view:
        view.show(0, frame(0), shown())
        view.write(ended(1))
        yield view


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "[", "", "localhost.evil"]
)
def test_another_name_for_this_machine_is_refused(view, host):
    for path in PATHS:
        assert get(view, path, Host=host)[0] == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:9", "[::1]:9", "127.9.9.9"])
def test_through_a_tunnel_it_is_this_machine_all_the_same(view, host):
    assert get(view, "/", Host=host)[0] == 200


def test_other_sites_pages_get_nothing_but_may_link_to_it(view):
    for site in ("cross-site", "same-site"):
        for path in PATHS:
            assert get(view, path, Sec_Fetch_Site=site, Sec_Fetch_Mode="no-cors")[0] == 403
        assert get(view, "/", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate")[0] == 200
        assert get(view, "/words.csv", Sec_Fetch_Site=site, Sec_Fetch_Mode="navigate")[0] == 403
    assert get(view, "/words.csv", Sec_Fetch_Site="same-origin", Sec_Fetch_Mode="cors")[0] == 200


def test_this_machine_alone_needs_no_token(view):
    assert view.server.host == "127.0.0.1" and view.link == f"http://127.0.0.1:{view.server.port}/"
    assert get(view, "/words.csv")[0] == 200


def test_others_need_the_token_and_keep_it_in_a_cookie(guarded):
    link, _, token = guarded.link.partition("?token=")
    assert len(token) >= 32 and link.endswith(f":{guarded.server.port}/")
    name = f"clip4str-view-{guarded.server.port}"
    for path in PATHS:
        for cookie in (
            "",
            f"{name}=",
            f"{name}={token[:-1]}",
            f"{name}={token}x",
            f"other={token}",
            "a b;=;\x7f",
            name,
        ):
            status, headers, content = get(guarded, path, Cookie=cookie)
            assert status == 401 and headers["Set-Cookie"] is None and token.encode() not in content
    assert get(guarded, f"/?token={token[:-1]}x")[0] == get(guarded, "/?token=")[0] == 401
    assert get(guarded, f"/words.csv?token={token}")[0] == 401
    status, headers, _ = get(guarded, f"/?token={token}", Host="192.0.2.7")
    assert (status, headers["Location"]) == (303, "/")
    cookie, *attributes = headers["Set-Cookie"].split("; ")
    assert cookie == f"{name}={token}" and {"HttpOnly", "SameSite=Strict", "Path=/"} == set(attributes)
    assert [get(guarded, path, Cookie=f"a=1; {cookie}")[0] for path in PATHS if path != "/events"] == [200] * 5 + [404]


def test_a_token_of_ones_own_is_not_shown(monkeypatch):
    monkeypatch.setenv(VARIABLE, TOKEN)
    with page() as view:  # asked for here, too, where one is given
        assert TOKEN not in view.link and get(view, "/")[0] == 401 and get(view, f"/?token={TOKEN}")[0] == 303
    with page(token="0123456789abcdef") as view:
        assert get(view, f"/?token={TOKEN}")[0] == 401 and get(view, "/?token=0123456789abcdef")[0] == 303


@pytest.mark.parametrize("token", ["", "short", "with space in the middle", "semi;colon-semi;colon", "é" * 20])
def test_a_token_that_can_be_guessed_or_is_no_cookie_is_refused_unseen(token):
    with pytest.raises(UsageError, match="16 to 200") as error:
        View("0", token)
    assert not token or token not in str(error.value)


def test_addresses():
    for text, address in (("8080", ("127.0.0.1", 8080)), ("[::1]:80", ("::1", 80)), ("cam.lan:80", ("cam.lan", 80))):
        assert listening_address(text, "--view") == address
    for bad in ("", "x", "-1", "65536", ":80", "::1:80", "http://a:80", "a:", "a:b", "[a", "1 2:3", "\u0663", "a@b:1"):
        with pytest.raises(UsageError, match="--view is a port"):
            listening_address(bad, "--view")


def test_a_port_that_is_taken_is_one_line_and_no_file_is_touched(view, tmp_path, capsys):
    words = tmp_path / "words.jsonl"
    words.write_text("{}\n")
    for address in (str(view.server.port), "nobody.invalid:80", "192.0.2.1:80"):
        assert main(["video", "missing.mp4", "--view", address, "--jsonl", str(words)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and "cannot be listened at" in error
    assert words.read_text() == "{}\n"
    assert main(["video", "missing.mp4", "--view-token", TOKEN]) == 2
    assert TOKEN not in capsys.readouterr().err


HERE = b"\r\nHost: localhost\r\n"
NO_REQUESTS = [
    b"GET / HTTP/1.1" + HERE + b"Content-Length: 5\r\n\r\nhello",
    b"GET / HTTP/1.1" + HERE + b"Transfer-Encoding: chunked\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"GET / HTTP/9.9" + HERE + b"\r\n",
    b"GET /\r\n\r\n",
    b"POST / HTTP/1.1" + HERE + b"\r\n",
    b"GET //[ HTTP/1.0" + HERE + b"\r\n",
    b"GET /?a&b=%ff HTTP/1.0" + HERE + b"\r\n",
    b"GET /?" + b"a=1&" * 99 + b" HTTP/1.0" + HERE + b"\r\n",
    b"\x16\x03\x01\r\n\r\n",
]


@pytest.mark.parametrize("sent", NO_REQUESTS)
def test_what_is_no_request_is_refused(view, sent):
    answer = talk(view, sent)
    assert b"<html" not in answer and answer[8:10] in (b" 4", b" 5")
    assert get(view, "/")[0] == 200


@pytest.mark.parametrize(
    "sent", [b"GET /" + b"x" * 10**6, b"GET / HTTP/1.0" + HERE + b"X: " + b"x" * 20000 + b"\r\n\r\n", b"\r\n\r\n", b""]
)
def test_what_has_no_end_or_no_beginning_is_hung_up_on(view, sent):
    assert talk(view, sent) == b""
    assert get(view, "/")[0] == 200


def talk(view, sent):
    """What comes back until the server hangs up."""
    with socket.create_connection(("127.0.0.1", view.server.port), timeout=30) as connection:
        answer = b""
        try:
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65536):
                answer += more
        except OSError:
            pass
        return answer


def test_several_requests_on_one_connection(view):
    one = b"GET /times.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    answer = talk(view, one * 2 + one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert answer.count(b"HTTP/1.1 200 OK") == answer.count(b"export function clock") == 3


def test_who_sends_a_request_byte_by_byte_is_cut_off(monkeypatch):
    monkeypatch.setattr(handler, "PATIENCE", 0.5)
    with page() as view, socket.create_connection(("127.0.0.1", view.server.port), timeout=30) as connection:
        over = threading.Event()

        def drip():
            while not over.wait(0.05):
                try:
                    connection.sendall(b"G")
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        try:
            assert connection.recv(1) == b""
        except ConnectionError:
            pass
        finally:
            over.set()
            thread.join()


def test_a_crowd_is_turned_away_and_the_reader_is_not_slowed(view, monkeypatch):
    monkeypatch.setattr(view.server, "connections", 8)
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(closing(Events(view)))
        assert talk(view, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n") == b""
        view.write(found(2))
    while talk(view, b"GET /times.js HTTP/1.0\r\nHost: localhost\r\n\r\n") == b"":
        view.write(found(3))  # until the server has seen that they are gone
    assert len(view.server._due) <= 8


def test_a_viewer_that_takes_nothing_holds_up_nobody_and_is_cut_off(monkeypatch):
    monkeypatch.setattr(handler, "PATIENCE", 4.0)
    with page() as view, closing(socket.socket()) as lazy:
        lazy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        lazy.connect(("127.0.0.1", view.server.port))
        lazy.sendall(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        with closing(Events(view)) as brisk:
            brisk.next()
            for number in range(3000):
                view.show(0, frame(number), shown())
                view.write(found(number, "x" * 500))
            seen = set()
            while 2999 not in seen:
                seen |= {word["track"] for word in brisk.until("words")[1]}
            while len(view.server._due) > 1:  # until the lazy one is gone
                brisk.next()
        assert len(view.board.since(0)[1]) == view.board.kept


def test_its_threads_end_with_it():
    before = set(threading.enumerate())
    view = page()
    events = [Events(view) for _ in range(3)]
    waiting = threading.Thread(target=talk, args=(view, b"GET /picture?source=0 HTTP/1.0" + HERE + b"\r\n"))
    waiting.start()
    view.close()
    waiting.join(30)
    for each in events:
        each.until("end")
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
    assert set(threading.enumerate()) <= before
