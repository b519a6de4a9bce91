#!/usr/bin/env python3
"""
JPEG to 224×224 RGB on one core, against Pillow and OpenCV, in turns within one run: images/s, the median of ROUNDS for each, and
how far the pixels lie from Pillow's.

    pip install pillow opencv-python-headless numpy
    BUILD=build/release tests/bench/decode-peers.py [--rounds 5] [PHOTO...]

Photos are first brought to 500×375, quality 90, 4:2:0. Without any, pictures are made up (noise of all scales and edges). ours and Pillow's
BILINEAR and BOX, and OpenCV's INTER_AREA, weigh all pixels that an output pixel covers; OpenCV's INTER_LINEAR takes the four nearest
and leaves out the others, which is faster and aliases.
"""
import argparse, glob, io, os, statistics, subprocess, tempfile, time
import cv2, numpy, PIL
from PIL import Image

parser = argparse.ArgumentParser()
parser.add_argument("--rounds", type=int, default=5)
parser.add_argument("photos", nargs="*")
args = parser.parse_args()
OURS = os.environ.get("BUILD", "build/release") + "/tests/bench-decode"
SIZE = 224
cv2.setNumThreads(1)


def made_up(seed):
    random = numpy.random.default_rng(seed)
    picture = numpy.zeros((375, 500, 3))
    for scale in 1, 2, 4, 8, 16, 32, 64:
        noise = random.normal(0, 2.5 * scale**0.7, (375 // scale + 2, 500 // scale + 2, 3)).astype(numpy.float32)
        picture += cv2.resize(noise, (500, 375), interpolation=cv2.INTER_CUBIC)
    picture += 128 + 50 * (numpy.add.outer(numpy.arange(375) * (seed % 3), numpy.arange(500)) // (60 + seed) % 2)[..., None]
    return Image.fromarray(picture.clip(0, 255).astype(numpy.uint8))


def photo(path):
    image = Image.open(path).convert("RGB")
    scale = max(500 / image.width, 375 / image.height)
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.LANCZOS).crop((0, 0, 500, 375))


def pillow(data, how):
    return numpy.asarray(Image.open(io.BytesIO(data)).resize((SIZE, SIZE), how))


def opencv(data, how):
    return cv2.resize(cv2.imdecode(numpy.frombuffer(data, numpy.uint8), cv2.IMREAD_COLOR), (SIZE, SIZE), interpolation=how)


def rate(run, files):
    start = time.perf_counter()
    for _ in range(3):
        for data in files:
            run(data)
    return 3 * len(files) / (time.perf_counter() - start)


with tempfile.TemporaryDirectory() as folder:
    images = [photo(path) for path in args.photos] or [made_up(seed) for seed in range(60)]
    for i, image in enumerate(images):
        image.save(f"{folder}/{i:04}.jpg", quality=90)
    paths = sorted(glob.glob(folder + "/*.jpg"))
    files = [open(path, "rb").read() for path in paths]
    peers = {
        "Pillow, BILINEAR": lambda data: pillow(data, Image.BILINEAR),
        "Pillow, BOX": lambda data: pillow(data, Image.BOX),
        "OpenCV, INTER_AREA": lambda data: opencv(data, cv2.INTER_AREA),
        "OpenCV, INTER_LINEAR (aliases)": lambda data: opencv(data, cv2.INTER_LINEAR),
    }
    found = {name: [] for name in ["inferfs", *peers]}
    for _ in range(args.rounds):
        out = subprocess.run([OURS, "--rounds", "3", *paths], check=True, stdout=subprocess.PIPE, text=True).stdout
        found["inferfs"].append(float(out))
        for name, run in peers.items():
            found[name].append(rate(run, files))
    print(f"Pillow {PIL.__version__}, OpenCV {cv2.__version__}; {len(files)} JPEGs of {sum(map(len, files)) // len(files)} bytes")
    for name, rates in found.items():
        print(f"{name:32} {statistics.median(rates):8.0f} images/s   ({min(rates):.0f} to {max(rates):.0f})")
    off, most, box = [], 0, []
    for path, data in list(zip(paths, files))[:: max(1, len(files) // 20)]:
        raw = subprocess.run([OURS, "--rounds", "0", "--write", path], check=True, stdout=subprocess.PIPE).stdout
        ours = numpy.frombuffer(raw, numpy.uint8).reshape(SIZE, SIZE, 3).astype(int)
        theirs = pillow(data, Image.BILINEAR).astype(int)
        off.append(abs(ours - theirs).mean())
        most = max(most, abs(ours - theirs).max())
        box.append(abs(pillow(data, Image.BOX).astype(int) - theirs).mean())
    print(f"difference to Pillow's BILINEAR, of 255: mean {statistics.mean(off):.2f}, most {most}; Pillow's BOX has mean {statistics.mean(box):.2f}")
