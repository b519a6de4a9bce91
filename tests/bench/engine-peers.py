#!/usr/bin/env python3
"""
ResNet-50, inference, against ONNX Runtime and PyTorch, in turns within one run: images/s, the median of ROUNDS for each.

    pip install torch torchvision onnxruntime onnx
    BUILD=build/release tests/bench/engine-peers.py [--batch 32,1] [--threads N] [--rounds 5] [--compile]

All have BatchNorm, f32 (PyTorch also bfloat16), random weights and images of 3×224×224; ours decodes nothing either, but normalises
bytes. --compile: torch.compile too (minutes).
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
import onnxruntime, torch, torchvision

INFERFS = os.environ.get("BUILD", "build/release") + "/inferfs"
torch.set_num_threads(args.threads)
torch.set_grad_enabled(False)


def exported(model):
    file = tempfile.NamedTemporaryFile(suffix=".onnx")
    torch.onnx.export(model, torch.randn(1, 3, 224, 224), file.name, dynamo=False, input_names=["x"], dynamic_axes={"x": {0: "n"}})
    return file


def ours(batch, repeat):
    command = [INFERFS, "bench", "resnet50", "--norm", "batch", "--slices", "0.25,0.5,1",
               "--batch", str(batch), "--repeat", str(repeat), "--threads", str(args.threads)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return {"inferfs, rate " + row["slice"]: batch / float(row["ms_median"]) * 1e3 for row in csv.DictReader(out.splitlines())}


def rate(run, batch, repeat):
    run()
    run()
    times = []
    for _ in range(repeat):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return batch / statistics.median(times)


model = torchvision.models.resnet50().eval()
onnx = exported(model)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = args.threads
session = onnxruntime.InferenceSession(onnx.name, options, providers=["CPUExecutionProvider"])
last = torchvision.models.resnet50().eval().to(memory_format=torch.channels_last)
compiled = torch.compile(model) if args.compile else None


def bf16(x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return last(x)


print(f"onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, {args.threads} threads")
for batch in map(int, args.batch.split(",")):
    x = torch.randn(batch, 3, 224, 224)
    x_last, x_numpy = x.to(memory_format=torch.channels_last), x.numpy()
    peers = {
        "onnxruntime": lambda: session.run(None, {"x": x_numpy}),
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
        print(f"batch {batch:3} {name:22} {statistics.median(rates):8.1f} images/s   ({min(rates):.1f} to {max(rates):.1f})", flush=True)
