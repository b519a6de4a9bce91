#!/usr/bin/env python3
"""
Training steps against PyTorch, in turns within one run: samples/s, the median of ROUNDS for each.

    pip install torch torchvision safetensors
    BUILD=build/release tests/bench/train-peers.py [--batch 128] [--threads N] [--rounds 5] [--compile] [--bf16] [--check]

ResNet-18 of 64 to 512 channels with a 3×3 stem on 3×32×32, 10 classes; forward, backward and SGD with Nesterov momentum and weight
decay, f32, on random images. Ours also with GroupNorm, and the sandwich step of four slices as a multiple of the full-width step.
--compile: torch.compile too (minutes). --bf16: PyTorch's autocast too; ours trains in f32.
--check: instead, one step of each on the same weights and images, and how far their new weights differ.
"""
import argparse, csv, json, os, statistics, subprocess, sys, tempfile, time, warnings

parser = argparse.ArgumentParser()
parser.add_argument("--batch", type=int, default=128)
parser.add_argument("--threads", type=int, default=os.cpu_count())
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("--repeat", type=int, default=3)
parser.add_argument("--compile", action="store_true")
parser.add_argument("--bf16", action="store_true")
parser.add_argument("--check", action="store_true")
args = parser.parse_args()
os.environ["OMP_NUM_THREADS"] = str(args.threads)
warnings.simplefilter("ignore")
import torch, torchvision
from torch import nn

BUILD = os.environ.get("BUILD", "build/release")
torch.set_num_threads(args.threads)
torch.manual_seed(1)


def network():
    net = torchvision.models.resnet18(num_classes=10)
    net.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    net.maxpool = nn.Identity()
    return net


def peer(images, labels, last=False, compiled=False, bf16=False):
    net = network()
    if last:
        net, images = net.to(memory_format=torch.channels_last), images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=5e-4)
    run = torch.compile(net) if compiled else net

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            loss = nn.functional.cross_entropy(run(images), labels)
        loss.backward()
        optimizer.step()

    return step


def ours(norm):
    net = {"arch": "resnet", "depth": 18, "style": "imagenet", "stem": "cifar", "norm": norm}
    command = [BUILD + "/inferfs", "bench", "--net", json.dumps(net), "--input", "3x32x32", "--classes", "10", "--sandwich",
               "--slices", "0.25,0.5,0.75,1", "--batch", str(args.batch), "--repeat", str(args.repeat), "--threads", str(args.threads)]
    out = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    times = {row["slice"]: float(row["ms_median"]) for row in csv.DictReader(out.splitlines())}
    for slices, ms in times.items():
        if slices == "1" or "+" in slices:
            yield f"inferfs, {norm} norm, {'sandwich' if '+' in slices else 'full width'}", ms / 1e3


def time_of(step):
    times = []
    for _ in range(args.repeat):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def check():
    """How far weights are after a step from PyTorch's in float64; and how far PyTorch's in float32 are."""
    from safetensors.torch import load_file, save_file

    net = network()
    before = {k: v.clone() for k, v in net.state_dict().items() if "num_batches" not in k}
    pixels = torch.randint(0, 256, (args.batch, 32, 32, 3), dtype=torch.uint8)
    labels = torch.randint(0, 10, (args.batch,))
    images = ((pixels / 255.0 - 0.5) / 0.25).permute(0, 3, 1, 2)
    model = {"format": "inferfs-model-2", "classes": 10, "slices": [{"rate": 1}],
             "net": {"arch": "resnet", "depth": 18, "style": "imagenet", "stem": "cifar", "norm": "batch"},
             "input": {"channels": 3, "height": 32, "width": 32, "mean": [0.5] * 3, "std": [0.25] * 3}}

    def stepped(dtype):
        copy = network().to(dtype)
        copy.load_state_dict(net.state_dict())
        optimizer = torch.optim.SGD(copy.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=0)
        for group in optimizer.param_groups:  # biases and norms don't decay
            weights = [p for p in group["params"] if p.dim() > 1]
            group["params"] = [p for p in group["params"] if p.dim() == 1]
        optimizer.add_param_group({"params": weights, "weight_decay": 5e-4})
        loss = nn.functional.cross_entropy(copy(images.to(dtype)), labels)
        loss.backward()
        optimizer.step()
        return loss.item(), {k: v.double() for k, v in copy.state_dict().items()}

    with tempfile.TemporaryDirectory() as folder:
        paths = [f"{folder}/{name}" for name in ("model.json", "weights", "pixels", "labels", "out")]
        open(paths[0], "w").write(json.dumps(model))
        save_file(before, paths[1])
        open(paths[2], "wb").write(pixels.numpy().tobytes())
        open(paths[3], "wb").write(labels.to(torch.uint8).numpy().tobytes())
        loss = float(subprocess.run([BUILD + "/tests/bench-train-step", *paths], check=True, stdout=subprocess.PIPE).stdout)
        after = load_file(paths[4])
    expected_loss, expected = stepped(torch.float64)
    plain_loss, plain = stepped(torch.float32)
    print(f"loss {loss:.7f}, PyTorch's {expected_loss:.7f} in float64, {plain_loss:.7f} in float32")
    for name, found in ("inferfs", after), ("PyTorch, float32", plain):
        wrong = {k: (found[k].double() - expected[k]).norm() for k in before}
        moved = {k: (expected[k] - before[k].double()).norm() for k in before}
        errors = {k: (wrong[k] / moved[k]).item() for k in before}
        all_wrong, worst = sum(w ** 2 for w in wrong.values()) ** 0.5, max(errors, key=errors.get)
        print(f"  {name:18} new weights off by {all_wrong / sum(v.norm() ** 2 for v in expected.values()) ** 0.5:.1e} of them, "
              f"by {all_wrong / sum(m ** 2 for m in moved.values()) ** 0.5:.1e} of the step; "
              f"arrays by {statistics.median(errors.values()):.1e} of their step in the median, {errors[worst]:.1e} at most ({worst})")


if args.check:
    check()
    sys.exit()
print(f"torch {torch.__version__}, {args.threads} threads, batch {args.batch}")
images, labels = torch.randn(args.batch, 3, 32, 32), torch.randint(0, 10, (args.batch,))
peers = {"torch": peer(images, labels), "torch, channels_last": peer(images, labels, last=True)}
if args.bf16:
    peers["torch, channels_last, bfloat16"] = peer(images, labels, last=True, bf16=True)
if args.compile:
    peers["torch.compile"] = peer(images, labels, compiled=True)
    peers["torch.compile, channels_last"] = peer(images, labels, last=True, compiled=True)
found = {}
for step in peers.values():  # compiled, allocated, warm
    step()
    step()
for _ in range(args.rounds):
    for name, step in peers.items():
        found.setdefault(name, []).append(time_of(step))
    for norm in "batch", "group":
        for name, seconds in ours(norm):
            found.setdefault(name, []).append(seconds)
for name, seconds in found.items():
    rates = [args.batch / s for s in seconds]
    print(f"{name:38} {statistics.median(rates):8.1f} samples/s   ({min(rates):.1f} to {max(rates):.1f})")
for name in [name for name in found if "full width" in name]:
    ratios = [b / a for a, b in zip(found[name], found[name.replace("full width", "sandwich")])]
    print(f"{name.replace('full width', 'sandwich against full width')}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
