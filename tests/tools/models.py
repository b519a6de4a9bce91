#!/usr/bin/env python3
"""Small models as other programs write them, and pictures for them: models.py DIRECTORY writes them there. ONNX is put together byte
by byte, as in tests/support/onnx_wire.h."""
import json
import os
import struct
import sys
import zlib


def varint(v):
    out = b""
    while v > 127:
        out += bytes([v & 127 | 128])
        v >>= 7
    return out + bytes([v])


def integer(field, v):
    return varint(field << 3) + varint(v)


def block(field, data):
    data = data.encode() if isinstance(data, str) else data
    return varint(field << 3 | 2) + varint(len(data)) + data


def ints(name, values):
    return block(5, block(1, name) + b"".join(integer(8, v) for v in values) + integer(20, 7))


def number(name, v):
    return block(5, block(1, name) + integer(3, v) + integer(20, 2))


def node(op, name, inputs, output, attributes=b""):
    return block(1, b"".join(block(1, i) for i in inputs) + block(2, output) + block(3, name) + block(4, op) + attributes)


def tensor(name, dims, values):
    return block(5, b"".join(integer(1, d) for d in dims) + integer(2, 1) + block(8, name) +
                 block(9, struct.pack("<%df" % len(values), *values)))


def image(name, side):
    dims = block(1, block(2, "n")) + b"".join(block(1, integer(1, d)) for d in (3, side, side))
    return block(11, block(1, name) + block(2, block(1, integer(1, 1) + block(2, dims))))


def output(name):
    return block(12, block(1, name) + block(2, block(1, integer(1, 1))))


def model(graph):
    return integer(1, 8) + block(7, graph + block(2, "test")) + block(8, integer(2, 17))


def colours(first, side=8, before=(b"", "x")):
    """The class of the strongest channel: red is `first`, green the next."""
    w = [1.0 if (c + first) % 3 == k else 0.0 for k in range(3) for c in range(3)]
    nodes, x = before
    return model(nodes + node("GlobalAveragePool", "pool", [x], "p") + node("Flatten", "flat", ["p"], "f") +
                 tensor("w", [3, 3], w) + tensor("b", [3], [0.0] * 3) +
                 node("Gemm", "classifier", ["f", "w", "b"], "y", number("transB", 1)) + image("x", side) + output("y"))


def heavy(layers, width, side):
    """Seconds of convolutions by a weight of 0 are added to x."""
    nodes = tensor("w1", [width, 3, 1, 1], [0.0] * width * 3) + node("Conv", "in", ["x", "w1"], "h0")
    nodes += tensor("wh", [width, width, 3, 3], [0.0] * width * width * 9)
    for i in range(layers):
        nodes += node("Conv", "conv%d" % i, ["h%d" % i, "wh"], "h%d" % (i + 1), ints("pads", [1, 1, 1, 1]))
    nodes += tensor("w2", [3, width, 1, 1], [0.0] * width * 3) + node("Conv", "out", ["h%d" % layers, "w2"], "h")
    nodes += node("Add", "sum", ["x", "h"], "s")
    return colours(0, side, (nodes, "s"))


def two_files(location):
    """The same, its weights (and before them what isn't) in a file of that name."""
    place = block(13, block(1, "location") + block(2, location)) + block(13, block(1, "offset") + block(2, "4")) + integer(14, 1)
    w = block(5, integer(1, 3) + integer(1, 3) + integer(2, 1) + block(8, "w") + place)
    data = struct.pack("<10f", 7, *[1.0 if c == k else 0.0 for k in range(3) for c in range(3)])
    return model(node("GlobalAveragePool", "pool", ["x"], "p") + node("Flatten", "flat", ["p"], "f") + w +
                 node("Gemm", "classifier", ["f", "w"], "y", number("transB", 1)) + image("x", 8) + output("y")), data


def safetensors(tensors):
    head, data = {}, b""
    for name, (dims, values) in tensors.items():
        packed = struct.pack("<%df" % len(values), *values)
        head[name] = {"dtype": "F32", "shape": dims, "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data


def png(side, colour):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = (b"\0" + bytes(colour) * side) * side
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def mlp(channels, side, classes, answer):
    n = channels * side * side
    return safetensors({
        "fc1.weight": ([8, n], [0.0] * 8 * n), "fc1.bias": ([8], [0.0] * 8),
        "fc.weight": ([classes, 8], [0.0] * 8 * classes),
        "fc.bias": ([classes], [1.0 if k == answer else 0.0 for k in range(classes)]),
    })


def write(name, data):
    with open(name, "wb") as f:
        f.write(data)


os.chdir(sys.argv[1])
write("colours.onnx", colours(0))
write("shifted.onnx", colours(1))
write("large.onnx", colours(0, before=(tensor("unused", [100000], [1.0] * 100000), "x")))
write("heavy.onnx", heavy(2, 64, 192))
write("strange.onnx", colours(0, before=(node("Frobnicate", "odd one", ["x"], "z"), "z")))
write("cut.onnx", colours(0)[:200])
for name in ("two.onnx", "astray.onnx"):
    pair = two_files("two.onnx.data" if name == "two.onnx" else "../c/labels.txt")
    write(name, pair[0])
    write(name + ".data", pair[1])
write("mlp.safetensors", mlp(3, 8, 3, 1))
write("mlp28.safetensors", mlp(1, 28, 10, 1))
write("other.safetensors", safetensors({"fc.weight": ([3, 8], [0.0] * 24)}))
for name, colour in (("red", (250, 20, 20)), ("green", (20, 250, 20)), ("blue", (20, 20, 250))):
    write(name + ".png", png(8, colour))
