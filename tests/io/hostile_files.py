"""Checkpoints that nobody should load: what each is, and what the refusal must say of it.

Pickles are written here opcode by opcode, zip files by ``zipfile`` or by changing what it wrote.
"""

import io
import struct
import zipfile

MAGIC = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
MB = 1 << 20

# --- parts of pickles -----------------------------------------------------------------------------


def name(module: str, function: str) -> bytes:
    return f"c{module}\n{function}\n".encode()


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = value.to_bytes(9, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def numbers(*values: int) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def call(function: bytes, *args: bytes) -> bytes:
    return function + b"(" + b"".join(args) + b"tR"


def storage(count: int, kind: str = "Float", key: str = "0", *more: bytes) -> bytes:
    type_name = name("torch", f"{kind}Storage")
    parts = [text("storage"), type_name, text(key), text("cpu"), number(count), *more]
    return b"(" + b"".join(parts) + b"tQ"


def tensor(
    of: bytes, shape: bytes, strides: bytes, offset: bytes = number(0), grad: bytes = b"\x89",
    hooks: bytes = b"N",
) -> bytes:  # fmt: skip
    return call(name("torch._utils", "_rebuild_tensor_v2"), of, offset, shape, strides, grad, hooks)


def array(code: str, shape: bytes, data: bytes, kind: bytes = name("numpy", "ndarray")) -> bytes:
    empty = call(name("numpy.core.multiarray", "_reconstruct"), kind, numbers(0), b"C\x01b")
    dtype = call(name("numpy", "dtype"), text(code), b"\x89", b"\x88")
    values = b"B" + struct.pack("<I", len(data)) + data
    return empty + b"(" + number(1) + shape + dtype + b"\x89" + values + b"tb"


def whole(body: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + body + b"."


# --- files ----------------------------------------------------------------------------------------


def archive(pickled: bytes, parts: dict[str, bytes] | None = None, root: str = "a") -> bytes:
    """A zip file as ``torch.save`` writes it: stored, with the storages beside the pickle."""
    entries = {f"{root}/data.pkl": pickled, f"{root}/version": b"3\n"}
    entries |= {f"{root}/{place}": data for place, data in (parts or {}).items()}
    return zipped(entries)


def zipped(entries: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as target:
        for place, data in entries.items():
            target.writestr(zipfile.ZipInfo(place), data, method)
    return file.getvalue()


def legacy(
    body: bytes, keys: bytes = b"]", data: bytes = b"", magic: bytes = MAGIC, version: int = 1001
) -> bytes:
    head = magic + whole(number(version)) + whole(b"}" + text("little_endian") + b"\x88s")
    return head + whole(body) + whole(keys) + data


def sized(data: bytes, itemsize: int = 4) -> bytes:
    return struct.pack("<q", len(data) // itemsize) + data


def changed(data: bytes, old: bytes, new: bytes, which: int = 0) -> bytes:
    """``data`` with the given occurrence of ``old`` replaced; it must be there."""
    place = -1
    for _ in range(which + 1):
        place = data.index(old, place + 1)
    return data[:place] + new + data[place + len(old) :]


FOUR = {"data/0": bytes(16)}
GOOD = whole(tensor(storage(4), numbers(2, 2), numbers(2, 1)))
SHELL = text("touch /tmp/owned")


# --- the corpus -----------------------------------------------------------------------------------


def _calls() -> dict[str, tuple[bytes, str]]:
    """Pickles that call something."""
    functions = [
        ("os", "system"), ("posix", "system"), ("builtins", "eval"), ("builtins", "exec"),
        ("builtins", "getattr"), ("__builtin__", "__import__"), ("subprocess", "Popen"),
        ("runpy", "run_path"), ("torch.serialization", "load"), ("torch.hub", "load"),
        ("torch.jit", "load"), ("numpy", "load"), ("pickle", "loads"), ("operator", "attrgetter"),
        ("builtins", "open"), ("webbrowser", "open"), ("shutil", "rmtree"),
        ("treadle.io", "save"), ("collections", "OrderedDict.__init__.__globals__"),
        ("torch._utils", "_rebuild_sparse_tensor"), ("argparse", "Namespace"),
    ]  # fmt: skip
    found = {
        f"calls {module}.{function}": (
            archive(whole(call(name(module, function), SHELL))), f"it asks for {module}.{function},"
        )
        for module, function in functions
    }  # fmt: skip
    stacked = text("os") + text("system") + b"\x93(" + SHELL + b"tR"
    inst = b"(" + SHELL + b"ios\nsystem\n"
    odd = name("collections", "OrderedDict")
    return found | {
        "a name from texts": (archive(whole(stacked, 4)), "it asks for os.system"),
        "a name from numbers": (archive(whole(number(1) + number(2) + b"\x93", 4)), "by something"),
        "in a legacy file": (legacy(call(name("os", "system"), SHELL)), "it asks for os.system"),
        "instead of the magic number": (
            whole(call(name("os", "system"), SHELL)) + bytes(200), "it asks for os.system"
        ),
        "INST": (archive(whole(inst)), "the opcode b'i'"),
        "OBJ": (archive(whole(b"(" + odd + b"o")), "the opcode b'o'"),
        "NEWOBJ_EX": (archive(whole(odd + b")}\x92", 4)), r"the opcode b'\x92'"),
        "EXT1": (archive(whole(b"\x82\x01")), r"the opcode b'\x82'"),
        "PERSID": (archive(whole(b"Pname\n")), "the opcode b'P'"),
        "a buffer from outside": (archive(whole(b"\x97", 5)), r"the opcode b'\x97'"),
        "calls a list": (archive(whole(b"](tR")), "it calls a list"),
        "calls with no tuple": (archive(whole(odd + b"]R")), "is called with a list, not a tuple"),
        "calls with too much": (archive(whole(call(odd, b")", b")"))), "that do not fit"),
        "a state for a dict": (archive(whole(b"}}b")), "it sets the state of a dict"),
        "a class for a dict": (
            archive(whole(odd + b")R}" + text("__class__") + number(1) + b"sb")),
            "attributes of an OrderedDict",
        ),
        "a state for a tensor": (
            archive(whole(GOOD[2:-1] + b"}" + text("backward") + number(1) + b"sb"), FOUR),
            "it sets the state of a Tensor",
        ),
        "zlib by _codecs": (
            archive(whole(call(name("_codecs", "encode"), text("x"), text("zlib")))), "'zlib'"
        ),
        "a whole module": (
            archive(whole(b"(" + text("module") + text("Net") + b"tQ")), "refers to a 'module'"
        ),
        "a class as a value": (archive(whole(name("torch", "FloatStorage"))), "torch.FloatStorage"),
        "a function as a value": (archive(whole(odd)), "holds collections.OrderedDict itself"),
    }  # fmt: skip


def _circles() -> dict[str, tuple[bytes, str]]:
    """Structures that nobody could walk, and those that take memory or time."""
    laughs = b"]q\0" + b"".join(
        b"](h" + bytes([i]) + b"h" + bytes([i]) + b"eq" + bytes([i + 1]) for i in range(60)
    )
    parts = b"(" + b"N" * 100_000 + b"tq\0"
    collide = b"".join(number(i) * 2 + b"\x86N" for i in range(11_000))
    expanded = tensor(storage(4), numbers(1 << 40), numbers(0))
    ints = [number(i) for i in range(60)]
    return {
        "lists 100,000 deep": (archive(whole(b"]" * 10**5 + b"a" * (10**5 - 1))), "deeper than"),
        "tuples 1,000 deep": (archive(whole(b")" + b"\x85" * 1000)), "nested deeper than 100"),
        "a list in itself": (archive(whole(b"]q\0h\0a")), "a list in it contains itself"),
        "a dict in itself": (archive(whole(b"}q\0" + text("k") + b"h\0s")), "a dict in it"),
        "a billion laughs": (archive(whole(laughs)), "the same parts again and again"),
        "2 MB of lists": (archive(whole(b"]" * 2 * MB)), "more than"),
        "2 MB of marks": (archive(whole(b"(" * 2 * MB)), "more than"),
        "a huge memo": (archive(whole(b"N" + b"\x94" * 2 * MB, 4)), "more than"),
        "sets again and again": (
            archive(whole(b"](" + b"".join(ints) + b"eq\0" + (
                name("builtins", "set") + b"h\0\x85R") * 200_000)),
            "more than",
        ),
        "bytes again and again": (
            archive(whole(text("x" * 1000) + b"q\0" + text("latin1") + b"q\1" + (
                name("_codecs", "encode") + b"h\0h\1\x86R") * 100_000)),
            "more than",
        ),
        "sizes again and again": (
            archive(whole(parts + (name("torch", "Size") + b"h\0\x85R") * 50)), "torch.Size"
        ),
        "a tensor of terabytes": (archive(whole(expanded), FOUR), "bytes of memory"),
        "a text of 4 GB": (archive(whole(b"X\xff\xff\xff\xff")), "bytes were to follow"),
        "bytes of 2**63": (archive(whole(b"\x8e" + b"\xff" * 8, 4)), "bytes were to follow"),
        "keys that meet": (archive(whole(b"}(" + collide + b"u")), "as keys"),
        "a list as a key": (archive(whole(b"}]Ns")), "it has a list as a key"),
        "a key of 5,000 letters": (archive(whole(b"}" + text("k" * 5000) + b"Ns")), "characters"),
        "a key of 2,000 bits": (
            archive(whole(b"}\x8a\xff" + b"\x7f" * 255 + b"Ns")), "bits; 64 is the limit"
        ),
        "a list in a set": (archive(whole(b"\x8f(]\x90", 4)), "it has a list as a key"),
        "items of a list": (archive(whole(b"]NNs")), "it sets items of a list"),
        "appends to a dict": (archive(whole(b"}Na")), "it appends to a dict"),
        "adds to a list": (archive(whole(b"](N\x90", 4)), "it adds elements to a list"),
        "a key with no value": (archive(whole(b"}(Nu")), "a key and no value"),
        "an empty stack": (archive(whole(b"a")), "from an empty stack"),
        "nothing": (archive(whole(b"")), "from an empty stack"),
        "no mark": (archive(whole(b"Nt")), "a mark that was not set"),
        "a part that is not there": (archive(whole(b"h\7")), "it refers to part 7"),
        "no end": (archive(GOOD[:-1], FOUR), "it ends early"),
        "protocol 0": (archive(b"(lp0\n."), "the opcode b'l'"),
        "protocol 9": (archive(whole(b"N", 9)), "of protocol 9"),
        "a name without end": (archive(whole(b"c" + b"x" * 1000)), "a name in it has no end"),
        "a text that is not UTF-8": (archive(whole(b"X\1\0\0\0\xff")), "is not UTF-8"),
    }  # fmt: skip


def on_four(body: bytes) -> bytes:
    return archive(whole(body), FOUR)


def _legacy() -> dict[str, tuple[bytes, str]]:
    """Pickles of before 1.6 with other storages than they say."""
    view = b"(" + text("1") + number(3) + number(2) + b"t"
    part = legacy(
        tensor(storage(4, "Float", "0", view), numbers(2), numbers(1)),
        b"]" + text("0") + b"a", sized(bytes(16)),
    )  # fmt: skip
    good = legacy(GOOD[2:-1], b"]" + text("0") + b"a", sized(bytes(16)))
    return {
        "another magic number": (legacy(b"N", magic=whole(number(1))), "the magic number"),
        "another version": (legacy(b"N", version=1002), "it is of version 1002"),
        "no keys": (legacy(GOOD[2:-1]), "the list of its storages"),
        "keys of numbers": (legacy(b"N", b"]" + number(1) + b"a"), "storages is damaged"),
        "a part outside": (part, "reaches outside it"),
        "ends early": (good[:-1], "the file ends early"),
        "another size": (
            changed(good, struct.pack("<q", 4), struct.pack("<q", 5)), "has another size"
        ),
    }  # fmt: skip


def _tensors() -> dict[str, tuple[bytes, str]]:
    """Tensors that do not fit."""
    four, square = storage(4), numbers(2, 2)
    return {
        "reaches outside": (on_four(tensor(four, numbers(2, 3), numbers(2, 1))), "reaches outside"),
        "an offset outside": (
            on_four(tensor(four, square, numbers(2, 1), number(1))), "reaches outside"
        ),
        "a negative offset": (
            on_four(tensor(four, square, numbers(2, 1), number(-1))), "the offset of a tensor"
        ),
        "a negative stride": (on_four(tensor(four, square, numbers(-2, 1))), "strides of a tensor"),
        "a negative size": (on_four(tensor(four, numbers(-2), numbers(1))), "the shape of"),
        "a size that is a text": (on_four(tensor(four, text("2"), numbers(1))), "the shape of"),
        "strides that wrap": (
            on_four(tensor(four, numbers(2, 2), numbers(1 << 63, 1))), "the strides of a tensor"
        ),
        "sizes that wrap": (
            on_four(tensor(four, numbers(1 << 33, 1 << 33), numbers(0, 0))), "describes a tensor of"
        ),
        "too few strides": (on_four(tensor(four, square, numbers(1))), "and strides (1,)"),
        "65 dimensions": (
            on_four(tensor(four, numbers(*[1] * 65), numbers(*[1] * 65))), "the shape of a tensor"
        ),
        "a tensor on a list": (on_four(tensor(b"]", square, numbers(2, 1))), "no storage"),
        "hooks": (on_four(tensor(four, square, numbers(2, 1), hooks=b"](N" b"e")), "with hooks"),
        "a gradient of integers": (
            archive(whole(tensor(storage(2, "Long"), numbers(2), numbers(1), grad=b"\x88")), FOUR),
            "it asks for the gradient (True) of a int64 tensor",
        ),
        "a parameter of a list": (
            on_four(call(name("torch._utils", "_rebuild_parameter"), b"]", b"\x88", b"N")),
            "a parameter without a tensor",
        ),
    }  # fmt: skip


def _storages() -> dict[str, tuple[bytes, str]]:
    """Storages and arrays that do not fit."""
    square = numbers(2, 2)
    return {
        "a storage too long": (on_four(tensor(storage(5), numbers(5), numbers(1))), "expected 20"),
        "a storage too short": (on_four(tensor(storage(3), numbers(3), numbers(1))), "expected 12"),
        "a storage of 2**60": (on_four(tensor(storage(1 << 60), square, numbers(2, 1))), "bytes; "),
        "a storage that is not there": (
            on_four(tensor(storage(4, key="7"), square, numbers(2, 1))), "which the file has not"
        ),
        "a storage elsewhere": (
            on_four(tensor(storage(4, key="../../../etc/passwd"), square, numbers(2, 1))),
            "which the file has not",
        ),
        "a storage of a dict": (
            on_four(tensor(b"(" + text("storage") + b"}" + text("0") * 2 + number(4) + b"tQ",
                           square, numbers(2, 1))),
            "a storage of type dict",
        ),
        "a quantised storage": (on_four(storage(4, "QInt8")), "it asks for torch.QInt8Storage"),
        "bools of 7": (
            archive(whole(tensor(storage(2, "Bool"), numbers(2), numbers(1))), {"data/0": b"\1\7"}),
            "bools of a tensor",
        ),
        "an array of objects": (on_four(array("O", numbers(1), bytes(8))), "only numbers and"),
        "an array of records": (on_four(array("V8", numbers(1), bytes(8))), "only numbers and"),
        "an array too short": (on_four(array("f4", numbers(5), bytes(16))), "expected 20"),
        "an array of a class": (
            on_four(array("f4", numbers(4), bytes(16), name("torch", "Tensor"))), "a class of its"
        ),
    }  # fmt: skip


def _zips() -> dict[str, tuple[bytes, str]]:
    """Zip files with tricks."""
    good = archive(GOOD, FOUR)
    directory = good.index(b"PK\1\2")
    bomb = zipped({"a/data.pkl": GOOD, "a/data/0": bytes(64 * MB)}, zipfile.ZIP_DEFLATED)

    def with_part(place: str) -> bytes:
        return zipped({"a/data.pkl": GOOD, "a/data/0": bytes(16), place: b"x"})

    def entry(which: int, offset: int, new: bytes) -> bytes:
        """The directory's record of a part, changed."""
        place = directory
        for _ in range(which):
            place = good.index(b"PK\1\2", place + 1)
        return good[: place + offset] + new + good[place + offset + len(new) :]

    return {
        "a zip bomb": (bomb, "is compressed"),
        "a part above": (with_part("../../.bashrc"), "a place outside"),
        "a part at the root": (with_part("/etc/passwd"), "a place outside"),
        "a part of Windows": (with_part("..\\x"), "a place outside"),
        "a drive": (with_part("C:x"), "a place outside"),
        "parts of one name": (
            changed(changed(with_part("a/data/1"), b"a/data/1", b"a/data/0"), b"a/data/1",
                    b"a/data/0"),
            "two parts of one name",
        ),
        "overlapping parts": (entry(1, 42, struct.pack("<I", 0)), "has another name where it lies"),
        "a part inside another": (
            # The second part's size reaches over the third's header.
            entry(1, 20, struct.pack("<II", 40, 40)), "overlap"
        ),
        "a part into the directory": (entry(2, 20, struct.pack("<II", 999, 999)), "reaches into"),
        "a part of 4 GB": (entry(2, 20, struct.pack("<II", 1 << 31, 1 << 31)), "reaches into"),
        "a part that is elsewhere": (entry(2, 42, struct.pack("<I", 7)), "not where its directory"),
        "two sizes": (entry(2, 20, struct.pack("<I", 4)), "is compressed"),
        "encrypted": (entry(0, 8, struct.pack("<H", 1)), "is encrypted"),
    }  # fmt: skip


def _directories() -> dict[str, tuple[bytes, str]]:
    """Zip files whose directory says something else than what is there."""
    good = archive(GOOD, FOUR)
    end = good.rindex(b"PK\5\6")
    second = good.index(b"PK\3\4", 4)
    locator = b"PK\6\7" + struct.pack("<IQI", 0, 1 << 63, 1)
    return {
        "no end": (good[:end], "no directory at its end"),
        "cut short": (good[: len(good) // 2], "no directory at its end"),
        "more than it has": (good + b"more", "does not end where it says"),
        "too many parts": (
            good[: end + 8] + struct.pack("<HH", 999, 999) + good[end + 12 :], "does not fit in it"
        ),
        "too few parts": (
            good[: end + 8] + struct.pack("<HH", 1, 1) + good[end + 12 :], "longer than what it"
        ),
        "one of several": (good[: end + 4] + b"\1" + good[end + 5 :], "one of several"),
        "a directory elsewhere": (
            good[: end + 16] + struct.pack("<I", 3) + good[end + 20 :], "directory of the zip file"
        ),
        "a directory at 2**63": (good[:end] + locator + good[end:], "is not where it says"),
        "another name where it lies": (
            good[: second + 30] + b"b" + good[second + 31 :], "has another name where it lies"
        ),
        "no pickle": (zipped({"a/x": b"1"}), "none of PyTorch's"),
        "two pickles": (zipped({"a/data.pkl": GOOD, "b/data.pkl": GOOD}), "none of PyTorch's"),
        "a byte order": (archive(GOOD, FOUR | {"byteorder": b"middle"}), "byte order is b'middle'"),
        "TorchScript": (archive(GOOD, FOUR | {"code/x.py": b""}), "which holds code"),
    }  # fmt: skip


def corpus() -> dict[str, tuple[bytes, str]]:
    """By name: the file, and a part of what its refusal says."""
    found: dict[str, tuple[bytes, str]] = {}
    for kind in (_calls, _circles, _tensors, _storages, _legacy, _zips, _directories):
        found |= {f"{kind.__name__[1:]}: {what}": made for what, made in kind().items()}
    return found


def good_files() -> dict[str, bytes]:
    """Small files that load, for changing."""
    body = b"}(" + text("w") + GOOD[2:-1] + text("n") + array("f8", numbers(2), bytes(16)) + b"u"
    return {
        "zip": archive(whole(body), FOUR),
        "legacy": legacy(body, b"]" + text("0") + b"a", sized(bytes(16))),
    }
