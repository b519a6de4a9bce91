#!/usr/bin/env python3
"""
ResNet-50, inference, against ONNX Runtime and PyTorch, in turns within one run: images/s, the median of ROUNDS for each.

    pip install torch torchvision onnxruntime onnx
    BUILD=build/release tests/bench/engine-peers.py [--batch 32,1] [--threads N] [--rounds 5] [--compile]

All have BatchNorm, f32 (PyTorch also bfloat16), random weights and images of 3×224×224; ours decodes nothing either, but normalises
bytes. --compile: torch.compile too (minutes). int8: ours, and ONNX Runtime's static quantisation (QDQ, weights by channel), both
calibrated by random images.
"""
import argparse, csv, os, statistics, subprocess, sys, tempfile, time, warnings

parser = argparse.ArgumentParser()
parser.add_argument("--batch", default="32,1")
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--compile", action="store_true")
args = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(args.threads)
warnings.simplefilter("ignore")
import numpy, onnxruntime, torch, torchvision
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization

INFERFS = os.environ.get("BUILD", "build/release") + "/inferfs"
torch.set_num_threads(args.threads)
torch.set_grad_enabled(False)


def exported(model):
    file = tempfile.NamedTemporaryFile(suffix=".onnx")
    torch.onnx.export(model, torch.randn(1, 3, 224, 224), file.name, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}})
    return file


def ours(batch, repeat):
    command = [INFERFS, "bench", "resnet50", "--norm", "batch", "--slices", "0.25,0.5,1",
               "--precision", "f32,int8", "--batch", str(batch), "--repeat", str(repeat), "--threads", str(args.threads)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {f"inferfs, rate {row['slice']}, {row['precision']}": batch / float(row["ms_median"]) * 1e3
            for row in csv.DictReader(out.splitlines())}


def rate(run, batch, repeat):
    run()
    run()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return batch / statistics.median(times)


class Images(quantization.CalibrationDataReader):
    def __init__(self, n):
        self.rest = n

    def get_next(self):
        self.rest -= 1
        return {"x": torch.randn(1, 3, 224, 224).numpy()} if self.rest >= 0 else None


def in_int8(file):
    """U8S8, as ONNX Runtime's documentation advises for CPUs with VNNI."""
    folded, file_int8 = tempfile.NamedTemporaryFile(suffix=".onnx"), tempfile.NamedTemporaryFile(suffix=".onnx")
    quantization.shape_inference.quant_pre_process(file.name, folded.name, skip_symbolic_shape=True)
    quantization.quantize_static(folded.name, file_int8.name, Images(8), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
                                 activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8)
    return file_int8


def started(file):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    return onnxruntime.InferenceSession(file.name, options, providers=["CPUExecutionProvider"])


def largest_sum():
    """What ONNX Runtime makes of 64 products of 255 and 127, 2,072,640 in all: half of it where pairs are added in 16 bits."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.UINT8, [8, 64])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.INT32, [8, 32])]
    weights = numpy_helper.from_array(numpy.full((64, 32), 127, numpy.int8), "w")
    graph = helper.make_graph([helper.make_node("MatMulInteger", ["x", "w"], ["y"])], "sum", inputs, outputs, [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    sums = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return sums.run(None, {"x": numpy.full((8, 64), 255, numpy.uint8)})[0].flat[0]


model = torchvision.models.resnet50().eval()
onnx = exported(model)
session, session_int8 = started(onnx), started(in_int8(onnx))
last = torchvision.models.resnet50().eval().to(memory_format=torch.channels_last)
compiled = torch.compile(model) if args.compile else None


def bf16(x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return last(x)


print(f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, {args.threads} threads")
print(f"onnxruntime, int8: 64 products of 255 and 127 come to {largest_sum()} of {64 * 255 * 127}")
for batch in map(int, args.batch.split(",")):
    x = torch.randn(batch, 3, 224, 224)
    x_last, x_numpy = x.to(memory_format=torch.channels_last), x.numpy()
    peers = {
        "onnxruntime": lambda: session.run(None, {"x": x_numpy}),
        "onnxruntime, int8": lambda: session_int8.run(None, {"x": x_numpy}),
        "torch": lambda: model(x),
        "torch, channels_last": lambda: last(x_last),
        "torch, bfloat16": lambda: bf16(x_last),
    }
    if compiled is not None:
        peers["torch.compile"] = lambda: compiled(x)
    repeat, found = max(3, 40 // batch), {}
    for _ in range(args.rounds):
        for name, run in peers.items():
            found.setdefault(name, []).append(rate(run, batch, repeat))
        for name, r in ours(batch, repeat).items():
            found.setdefault(name, []).append(r)
    for name, rates in found.items():
        print(f"batch {batch:3} {name:24} {statistics.median(rates):8.1f} images/s   ({min(rates):.1f} to {max(rates):.1f})", flush=True)
