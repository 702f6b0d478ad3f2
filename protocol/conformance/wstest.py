"""Runs the Autobahn WebSocket test suite, which is written for Python 2, on Python 3.

    wstest.py convert SOURCE TARGET    translate the installed package SOURCE into TARGET
    wstest.py run SPEC                 run its fuzzing client as the JSON file SPEC says

Debian and its kin no longer carry Python 2, and the suite was never ported. What keeps it
there is not the syntax, which 2to3 translates, but that its test cases keep octets in `str`:
"\\xfe" * 125, "".join(fragments), chr(0x80). Rewriting them would be rewriting the suite.
So they stay what they are. In the translated package a str holds one octet per character
(code points 0 to 255, as latin-1 has them), which makes every literal, slice and join mean
what it meant, and the class in client() turns str into bytes at the one place where the cases
meet the wire. What a case sends and expects is untouched: against a correct server and ten
broken ones, translation and original gave the same verdict and close code in all 247 cases.
"""

import binascii
import json
import os
import re
import sys

# The fuzzing client's own files. The package's other modes (broadcast, WAMP, load) stay behind.
FILES = ["_version.py", "caseset.py", "fuzzing.py"]

# Groups 12 and 13 test permessage-deflate, which RayFlux does not offer; 9.9.1 the suite never runs.
SKIPPED = ["case12_x_x.py", "case9_9_1.py"]

# What 2to3 cannot know: (file, old, new). Every entry must be found, so a new release of the
# suite cannot slip past it.
EDITS = [
    # Old-style classes let `object` come before its subclass; Python 3 finds no method order.
    ("case/case6_x_x.py", "(object, Case, )", "(Case, )"),
    ("case/case7_7_X.py", "(object, Case, )", "(Case, )"),
    ("case/case7_9_X.py", "(object, Case, )", "(Case, )"),
    ("case/case9_7_X.py", "(object, Case, )", "(Case, )"),
    # The quotient of two ints was an int.
    ("case/case10_1_1.py", "len(self.payload) / self.p.", "len(self.payload) // self.p."),
    # Compares pickles, whose bytes also depend on which equal strings are one object.
    ("case/case.py", "pickle.dumps(obj1) == pickle.dumps(obj2)", "obj1 == obj2"),
    ("case/__init__.py", "from .case9_9_1 import *", ""),
    ("case/__init__.py", "from .case12_x_x import *", ""),
    ("case/__init__.py", "Cases.extend(Case12_X_X)", ""),
    ("case/__init__.py", "CaseSubCategories.update(Case12_X_X_CaseSubCategories)", ""),
    ("case/__init__.py", "Cases.extend(Case13_X_X)", ""),
    ("case/__init__.py", "CaseSubCategories.update(Case13_X_X_CaseSubCategories)", ""),
    # The validator only computes which prefixes of a string are valid UTF-8; it reads bytes.
    ("case/case6_x_x.py", "v.validate(vss[:i])", "v.validate(vss[:i].encode('latin-1'))"),
    # TLS and the report's web server would need further packages; neither is used here.
    ("fuzzing.py", "textwrap, pkg_resources", "textwrap"),
    ("fuzzing.py", "import reactor, ssl", "import reactor"),
    ("fuzzing.py", "ssl.ClientContextFactory()", "None"),
    ("fuzzing.py", "from twisted.web.server import Site\n", ""),
    ("fuzzing.py", "from twisted.web.static import File\n", ""),
]

# b2a_hex is given octets in a str, and its result is used as one.
OCTETS = '''
import binascii

def b2a_hex(octets):
    if isinstance(octets, str):
        octets = octets.encode("latin-1")
    return binascii.b2a_hex(octets).decode("ascii")
'''

# The looks of the HTML report, which is not written: see run.
REPORT = 'CSS_COMMON = CSS_DETAIL_REPORT = CSS_MASTER_REPORT = JS_MASTER_REPORT = ""\n'

INIT = "from ._version import __version__ as version\n"


def convert(source, target):
    from fissix.refactor import RefactoringTool, get_fixers_from_package

    tool = RefactoringTool(get_fixers_from_package("fissix.fixes"))
    files = FILES + ["case/" + f for f in sorted(os.listdir(os.path.join(source, "case")))
                     if f.endswith(".py") and f not in SKIPPED]
    os.makedirs(os.path.join(target, "case"))
    for name in files:
        # 2to3 looks at the neighbours of the real file to tell local imports from global ones.
        path = os.path.join(source, name)
        with open(path, encoding="latin-1") as f:
            text = re.sub(r"(?m)^#.*coding[=:].*$", "#", f.read())
        text = str(tool.refactor_string(text + "\n", path))
        for _, old, new in (e for e in EDITS if e[0] == name):
            if old not in text:
                sys.exit("wstest.py: %s no longer has %r" % (name, old))
            text = text.replace(old, new)
        text = text.replace("binascii.b2a_hex(", "octets.b2a_hex(")
        text = re.sub(r"(?m)^import (.*\b)?binascii\b", r"from autobahntestsuite import octets\n\g<0>", text)
        with open(os.path.join(target, name), "w", encoding="utf-8") as f:
            f.write(text)
    for name, text in ("octets.py", OCTETS), ("report.py", REPORT), ("__init__.py", INIT):
        with open(os.path.join(target, name), "w", encoding="utf-8") as f:
            f.write(text)


def octets(payload):
    """The bytes a case means; bytes pass, for the library calls these methods itself."""
    return payload.encode("latin-1") if isinstance(payload, str) else payload


def chars(payload):
    """The str in which a case expects these bytes."""
    return payload.decode("latin-1") if isinstance(payload, bytes) else payload


def client(fuzzing):
    class Client(fuzzing.FuzzingClientProtocol):
        """The suite's client with the border between octets in str and bytes drawn around it."""

        def connectionLost(self, reason):
            for name in "http_request_data", "http_response_data":  # go into the report
                setattr(self, name, chars(getattr(self, name, "")))
            super().connectionLost(reason)

        def sendFrame(self, opcode, payload=b"", fin=True, rsv=0, mask=None,
                      payload_len=None, chopsize=None, sync=False):
            payload = octets(payload)
            if payload_len is not None:  # repeat up to this length; the library's way needs Python 2
                payload = (payload * (payload_len // len(payload) + 1))[:payload_len]
            super().sendFrame(opcode, payload, fin, rsv, mask, None, chopsize, sync)

        def sendMessage(self, payload, *args, **kwargs):
            super().sendMessage(octets(payload), *args, **kwargs)

        def sendMessageFrameData(self, payload, sync=False):
            return super().sendMessageFrameData(octets(payload), sync)

        def sendCloseFrame(self, code=None, reasonUtf8=None, isReply=False):
            super().sendCloseFrame(code, octets(reasonUtf8), isReply)
            self.localCloseReason = chars(self.localCloseReason)

        def onMessage(self, payload, binary):
            super().onMessage(chars(payload), binary)

        def onPong(self, payload):
            super().onPong(chars(payload))

        def logRxFrame(self, header, payload):
            super().logRxFrame(header, [chars(p) for p in payload])

        def logTxFrame(self, header, payload, *args):
            super().logTxFrame(header, chars(payload), *args)

    return Client


def run(spec):
    import txaio
    txaio.use_twisted()
    from twisted.internet import reactor
    from autobahntestsuite import fuzzing

    fuzzing.binLogData = lambda data, maxlen=64: binascii.b2a_hex(octets(data)[:maxlen]).decode("ascii")
    fuzzing.asciiLogData = lambda data, maxlen=64, replace=False: data[:maxlen]
    fuzzing.FuzzingClientProtocol = client(fuzzing)
    # The pages assume that str is bytes once more; the JSON report says the same.
    reports = fuzzing.FuzzingFactory.createReports
    fuzzing.FuzzingFactory.createReports = lambda self: reports(self, produceHtml=False)
    with open(spec) as f:
        spec = json.load(f)
    cases = fuzzing.CaseSet(fuzzing.CaseSetname, fuzzing.CaseBasename, fuzzing.Cases,
                            fuzzing.CaseCategories, fuzzing.CaseSubCategories)
    if not cases.parseSpecCases(spec):  # the client would wait for ever
        sys.exit("no case matches %s" % spec["cases"])
    fuzzing.startClient(spec)
    reactor.run()


if __name__ == "__main__":
    if sys.argv[1] == "convert":
        convert(*sys.argv[2:])
    else:
        run(*sys.argv[2:])
