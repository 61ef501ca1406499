"""
The hello conversation, and what tells how its messages are cut.
"""

from __future__ import annotations

import contextlib

from fuzzing.framing import messages_of
from fuzzing.targets import LONGEST, Given, alike, target, told
from sockproto.errors import PeerError, SettingError
from sockproto.wire import datagram, framing, hello
from sockproto.wire.framing import Framing

ANSWER = hello.Answer(b"Hello, ", b"!")


def server_of(
    how: Framing, reads: list[bytes], limit: int
) -> tuple[list[hello.Event], str]:
    """What the server's side says of these reads, and its error."""
    conversation = hello.HelloConversation(how, ANSWER, max_name=limit)
    said: list[hello.Event] = []
    try:
        for read in [*reads, None]:
            if read is None:
                conversation.receive_eof()
            else:
                conversation.receive_data(read)
            while (event := conversation.next_event()) is not None:
                said.append(event)
            # A netstring has its length before it, of which one digit is too much.
            assert conversation.pending <= limit + 8, conversation.pending
    except PeerError as error:
        return said, f"{type(error).__name__}: {told(error)}"
    return said, ""


def client_of(
    how: Framing, reads: list[bytes], limit: int = 65_536
) -> tuple[list[object], str]:
    """What the client's side says of these reads, and its error."""
    conversation = hello.HelloClientConversation(how, max_message=limit)
    said: list[object] = []
    try:
        for read in [*reads, None]:
            if read is None:
                conversation.receive_eof()
            else:
                conversation.receive_data(read)
            while (event := conversation.next_event()) is not None:
                said.append(event)
    except PeerError as error:
        return said, f"{type(error).__name__}: {told(error)}"
    return said, ""


@target(b"Michael", b"Michael\nTracy\nexit\n", b"x" * 700 + b"\n", words=(b"\n",))
def opening(given: Given) -> None:
    """
    `auto` settles by the first 1,026 bytes alone, and a conversation of lines then
    goes on as one that was of lines from the first.
    """
    stream = b"x" * (given.other * 8) + given.stream
    limit = 1 + given.choice * 8

    def hear(reads: list[bytes]) -> tuple[object, ...]:
        start = framing.Opening()
        came = 0
        for at, read in enumerate(reads):
            came += len(read)
            settled = start.receive_data(read)
            assert len(start.run) == came, "the run is another"
            if settled is Framing.LINE:
                return settled, server_of(settled, [start.run, *reads[at + 1 :]], limit)
            if settled is not None:
                return (settled,)
            assert came <= framing.OPENING_SIZE, "it has not settled"
        return (start.receive_eof(),)

    heard = alike(given, stream, hear)
    start = stream[: framing.OPENING_SIZE]
    if b"\n" in start:
        whole = server_of(Framing.LINE, [stream], limit)
        assert heard == (Framing.LINE, whole), heard
    else:
        assert heard == ((Framing.CHUNK if stream else None),), heard


@target(
    b"Michael\r\nTracy\nexit\nSarah\n",
    b"7:Michael,4:exit,5:Tracy,",
    b"Michael\nex",
    words=(b"exit\n", b"4:exit,", b"exit\r\n"),
)
def hello_server(given: Given) -> None:
    """
    It ends once, and whom it answers gets the answers, in order and nothing else.
    """
    how = Framing.NETSTRING if given.has(0) else Framing.LINE
    limit = given.other + 1
    said, error = alike(given, given.stream, lambda reads: server_of(how, reads, limit))
    *named, last = [*said, None] if error else said
    assert all(isinstance(event, hello.Named) for event in named), said
    assert error or isinstance(last, hello.Ended | hello.Exited), said
    names = [event for event in named if isinstance(event, hello.Named)]
    assert all(0 < len(each.name) <= limit for each in names), said
    out = framing.frame(how, b"Welcome!") + b"".join(each.answer for each in names)
    heard = alike(given, out, lambda reads: client_of(how, reads))
    answers = [hello.AnswerCame(ANSWER.to(each.name)) for each in names]
    assert heard == ([hello.GreetingCame(b"Welcome!"), *answers], ""), heard


@target(b"Welcome!\nHello, Michael!\n", b"8:Welcome!,15:Hello, Michael!,", b"Welcome!")
def hello_client(given: Given) -> None:
    """
    The first message is the greeting, the others are answers, none is lost.
    """
    how = list(Framing)[given.choice % 3 + 1]
    limit = given.other + 1
    if how is Framing.CHUNK:
        reads = given.cut(given.stream)
        said, error = client_of(how, reads)
        expected = reads
    else:
        said, error = alike(
            given, given.stream, lambda reads: client_of(how, reads, limit)
        )
        expected, broken = messages_of(
            framing.splitter(how, limit), [given.stream], LONGEST
        )
        assert error == broken
    assert said == [
        (hello.AnswerCame if at else hello.GreetingCame)(message)
        for at, message in enumerate(expected)
    ]


@target(b"Michael|exit|Tracy|\r|\n|", b"|" + b"x" * 1025, words=(b"exit", b"\r"))
def names(given: Given) -> None:
    """
    A name with which there is no problem is one name to a server, in `auto` too.
    """
    how = list(Framing)[given.choice % 3 + 1]
    limit = framing.DEFAULT_MAX_MESSAGE
    good = [
        name
        for name in given.stream.split(b"|")
        if hello.problem_with_name(how, name) is None and len(name) <= limit
    ]
    reads = [framing.frame(how, name) for name in good]
    expected = [
        *[hello.Named(name, framing.frame(how, ANSWER.to(name))) for name in good],
        hello.Ended(),
    ]
    if how is Framing.CHUNK:
        assert server_of(how, reads, limit) == (expected, "")
    else:
        sent = b"".join(reads)
        heard = alike(given, sent, lambda reads: server_of(how, reads, limit))
        assert heard == (expected, ""), heard
    if reads and how is not Framing.NETSTRING:
        start = framing.Opening()
        # The tutorial's client waits for its answer, so there is a pause.
        assert (start.receive_data(reads[0]) or start.settle()) is how, reads[0]


@target(b"Hello, NAME!|Michael", b"NAME|x", b"aNAMEa|aa", words=(b"NAME", b"|"))
def hello_datagram(given: Given) -> None:
    """
    A template is taken or refused; no answer is answered; a name is found again.
    """
    template, _, name = given.stream.partition(b"|")
    text = given.text.partition("|")[0]
    with contextlib.suppress(SettingError):
        hello.Answer.parse(text)
    try:
        answer = hello.Answer.parse(template)
    except SettingError as error:
        told(error)
        assert template.count(b"NAME") != 1, template
        return
    assert answer.to(b"NAME") == template
    said = answer.to(name)
    assert answer.name_in(said) == name
    assert (datagram.answer_to(answer, name) is None) == (
        not name or datagram.looks_like_answer(answer, name)
    )
    assert datagram.answer_to(answer, name) in {None, said}
    if answer.tells_itself:
        assert datagram.answer_to(answer, said) is None, "two would talk for ever"
