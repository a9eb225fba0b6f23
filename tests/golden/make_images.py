#!/usr/bin/env python3
"""Makes tests/data/images: tiny image files of every kind with what Pillow reads from them, checksums of Pillow's
resize, and outputs of Hugging Face's image processors.

    make_images.py [--photos DIR]

With --photos (a folder of JPEG files) it also writes real.json, checksums of 50 of those photos.
Needs Pillow 13 or newer, numpy, torch and transformers 5 (with their Pillow backend).
"""
import argparse, io, json, os, struct, warnings, zlib
import numpy as np
from PIL import Image, ImageOps

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "images")
W, H = 19, 13
FILTERS = ["nearest", "lanczos", "bilinear", "bicubic", "box", "hamming"]


def pattern(width, height, channels=3):
    """The test picture: slopes with noise; pattern() in the C++ tests is the same."""
    y, x, c = (a.astype(np.uint32) for a in np.mgrid[0:height, 0:width, 0:channels])
    noise = (x * 73856093 ^ y * 19349663 ^ c * 83492791) * np.uint32(2654435761)
    return ((x * (3 + c) + y * (7 - c) + (noise >> 16) % 64) % 256).astype(np.uint8)


def crc(array):
    return zlib.crc32(np.ascontiguousarray(array).tobytes())


def write(name, data):
    with open(os.path.join(OUT, name), "wb") as f:
        f.write(data)


def save(name, image, **options):
    image.save(os.path.join(OUT, name), **options)


def encoded(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


# ---- JPEG

def jpegs(rgb, cmyk):
    for name, sampling in (("444", 0), ("422", 1), ("420", 2)):
        save(f"jpeg_{name}.jpg", rgb, quality=85, subsampling=sampling)
    save("jpeg_progressive.jpg", rgb, quality=85, progressive=True)
    save("jpeg_grey.jpg", rgb.convert("L"), quality=85)
    save("jpeg_restarts.jpg", rgb, quality=60, subsampling=2, restart_marker_blocks=1)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x112] = orientation
        save(f"jpeg_orientation{orientation}.jpg", rgb, quality=40, exif=exif)
    packet = b'<rdf:Description tiff:Orientation="6"/>'
    save("jpeg_xmp_orientation.jpg", rgb, quality=40, xmp=packet)
    save("jpeg_cmyk.jpg", cmyk, quality=80)
    save("jpeg_cmyk_progressive.jpg", cmyk, quality=80, subsampling=2, progressive=True)
    data = encoded(cmyk, "JPEG", quality=80, subsampling=2, restart_marker_blocks=1)
    at = data.index(b"Adobe")
    write("jpeg_ycck.jpg", data[:at + 11] + b"\2" + data[at + 12:])  # the same numbers as luma and chroma
    write("jpeg_cmyk_unmarked.jpg", data[:at - 4] + data[at + 12:])  # without the Adobe segment


# ---- PNG

def png(name, color, depth, interlaced=False, palette=None, extra=b""):
    rng = np.random.default_rng(len(name))
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[color]

    def rows(width, height):
        size = (width * channels * depth + 7) // 8
        return b"".join(bytes([y % 5]) + rng.integers(0, 256, size).astype(np.uint8).tobytes() for y in range(height))

    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    if interlaced:
        raw = b"".join(rows((W - x + dx - 1) // dx, (H - y + dy - 1) // dy) for x, y, dx, dy in passes)
    else:
        raw = rows(W, H)

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", W, H, depth, color, 0, 0, interlaced))
    data += chunk(b"gAMA", struct.pack(">I", 22222)) + extra
    if palette is not None:
        data += chunk(b"PLTE", palette)
    packed = zlib.compress(raw, 9)
    for part in (packed[:20], b"", packed[20:]):
        data += chunk(b"IDAT", part)
    write(name, data + chunk(b"IEND", b""))


def pngs(rgb, rgba):
    colors = np.random.default_rng(3).integers(0, 256, 768).astype(np.uint8).tobytes()
    for color, depths in {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.items():
        kind = {0: "grey", 2: "rgb", 3: "palette", 4: "grey_alpha", 6: "rgba"}[color]
        for depth in depths:
            palette = colors[:3 << depth] if color == 3 else None
            png(f"png_{kind}{depth}.png", color, depth, palette=palette)
            if depth in (4, 16) or color == 6:
                png(f"png_{kind}{depth}_interlaced.png", color, depth, True, palette)
    png("png_palette_short.png", 3, 8, palette=colors[:99])
    save("png_palette_transparent.png", rgb.quantize(16), transparency=bytes(range(0, 160, 10)))
    save("png_grey_transparent.png", rgb.convert("L"), transparency=5)
    save("png_rgb_transparent.png", rgb, transparency=(3, 7, 9))
    faint = Image.fromarray((pattern(W, H, 1)[..., 0].astype(np.uint16) * 2))
    save("png_grey16_dark.png", faint)
    exif = Image.Exif()
    exif[0x112] = 7
    save("png_orientation7.png", rgba, exif=exif)
    save("png_animated.png", rgb, save_all=True, append_images=[rgb.rotate(180)])


# ---- WebP

def webps(rgb, rgba):
    save("webp_lossy.webp", rgb, quality=70)
    save("webp_lossless.webp", rgb, lossless=True)
    save("webp_lossy_alpha.webp", rgba, quality=60)
    save("webp_lossless_alpha.webp", rgba, lossless=True, exact=True)
    exif = Image.Exif()
    exif[0x112] = 5
    save("webp_orientation5.webp", rgb, quality=50, exif=exif)
    save("webp_animated.webp", rgb, save_all=True, append_images=[rgb.rotate(180)], quality=50)
    part = Image.new("RGBA", (W, H))
    part.paste(rgba.crop((4, 2, 15, 10)), (4, 2))
    save("webp_animated_part.webp", part, save_all=True, append_images=[rgba, part], lossless=True)


# ---- TIFF

class Tiff:
    """Writes what Pillow doesn't: tiles, planes, 16 bits, byte orders."""

    def __init__(self, samples, big=False, planar=False, tile=None, rows=None, deflate=False, predictor=False):
        self.a, self.big, self.planar, self.tile = samples, big, planar, tile
        self.rows, self.deflate, self.predictor = rows or samples.shape[0], deflate, predictor

    def block(self, part):
        if self.predictor:
            part = np.concatenate([part[:, :1], part[:, 1:] - part[:, :-1]], 1)
        data = part.astype((">" if self.big else "<") + f"u{part.itemsize}").tobytes()
        return zlib.compress(data) if self.deflate else data

    def blocks(self):
        height, width, samples = self.a.shape
        for plane in [self.a[..., i:i + 1] for i in range(samples)] if self.planar else [self.a]:
            if not self.tile:
                yield from (self.block(plane[y:y + self.rows]) for y in range(0, height, self.rows))
                continue
            for y in range(0, height, self.tile):
                for x in range(0, width, self.tile):
                    full = np.zeros((self.tile, self.tile, plane.shape[2]), plane.dtype)
                    part = plane[y:y + self.tile, x:x + self.tile]
                    full[:part.shape[0], :part.shape[1]] = part
                    yield self.block(full)

    def file(self, photometric, extra=None, colors=None, orientation=None):
        order = ">" if self.big else "<"
        height, width, samples = self.a.shape
        blocks = list(self.blocks())
        offsets = np.cumsum([8] + [len(b) for b in blocks]).tolist()
        tags = {256: [width], 257: [height], 258: [8 * self.a.itemsize] * samples, 259: [8 if self.deflate else 1],
                262: [photometric], 277: [samples], 284: [2 if self.planar else 1]}
        if self.predictor:
            tags[317] = [2]
        if extra is not None:
            tags[338] = [extra]
        if colors is not None:
            tags[320] = colors
        if orientation:
            tags[274] = [orientation]
        where, sizes = (324, 325) if self.tile else (273, 279)
        tags[where], tags[sizes] = offsets[:-1], [len(b) for b in blocks]
        tags.update({322: [self.tile], 323: [self.tile]} if self.tile else {278: [self.rows]})
        body = b"".join(blocks)
        at, outside = 8 + len(body), b""
        entries = struct.pack(order + "H", len(tags))
        for tag, values in sorted(tags.items()):
            long = tag in (273, 279, 324, 325)
            data = struct.pack(order + ("I" if long else "H") * len(values), *values)
            entries += struct.pack(order + "HHI", tag, 4 if long else 3, len(values))
            if len(data) <= 4:
                entries += data.ljust(4, b"\0")
            else:
                entries += struct.pack(order + "I", at + 2 + 12 * len(tags) + 4 + len(outside))
                outside += data
        return (b"MM\0*" if self.big else b"II*\0") + struct.pack(order + "I", at) + body + entries + bytes(4) + outside


def tiffs(rgb, rgba, cmyk):
    for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        save(f"tiff_{name.split('_')[-1]}.tif", rgb, compression=name)
    save("tiff_jpeg.tif", rgb, compression="jpeg")
    save("tiff_grey_jpeg.tif", rgb.convert("L"), compression="jpeg")
    save("tiff_fax4.tif", rgb.convert("1"), compression="group4")
    save("tiff_fax3.tif", rgb.convert("1"), compression="group3")
    save("tiff_black_white.tif", rgb.convert("1"))
    save("tiff_cmyk_lzw.tif", cmyk, compression="tiff_lzw")
    save("tiff_palette.tif", rgb.quantize(16), compression="tiff_lzw")
    save("tiff_grey_alpha.tif", Image.merge("LA", (rgb.convert("L"), rgba.getchannel("A"))))
    a8, a16 = pattern(W, H, 4), pattern(W, H, 4).astype(np.uint16) * 257 // 3
    write("tiff_tiles_big_endian16.tif", Tiff(a16[..., :3], big=True, tile=16, deflate=True, predictor=True).file(2))
    write("tiff_planes.tif", Tiff(a8[..., :3], planar=True, rows=5).file(2))
    write("tiff_planes_tiles.tif", Tiff(a8[..., :3], big=True, planar=True, tile=16, deflate=True).file(2))
    write("tiff_rgba.tif", Tiff(a8, rows=4, deflate=True).file(2, extra=2))
    write("tiff_rgba_premultiplied.tif", Tiff(a8, rows=4).file(2, extra=1))
    write("tiff_rgba16_premultiplied.tif", Tiff(a16, big=True).file(2, extra=1))
    write("tiff_grey16.tif", Tiff(a16[..., :1] // 70, deflate=True, predictor=True).file(1))
    write("tiff_white_is_zero.tif", Tiff(a8[..., :1]).file(0))
    write("tiff_orientation8.tif", Tiff(a8[..., :3], deflate=True).file(2, orientation=8))


# ---- BMP

def bmp(name, bits, data, compression=0, header=40, colors=0, masks=(), top_down=False):
    palette = np.random.default_rng(bits).integers(0, 256, (colors, 4)).astype(np.uint8)
    if header == 12:
        info, palette = struct.pack("<IHHHH", 12, W, H, 1, bits), palette[:, :3]
    else:
        info = struct.pack("<IiiHHIIiiII", header, W, -H if top_down else H, 1, bits, compression, len(data), 0, 0, colors, 0)
        info += b"".join(struct.pack("<I", mask) for mask in masks)
        info = info.ljust(header, b"\0")
    start = 14 + len(info) + palette.size
    write(name, b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + info + palette.tobytes() + data)


def bmps(rgb, rgba):
    rng = np.random.default_rng(9)

    def raw(bits):
        used, stride = (W * bits + 7) // 8, (W * bits + 31) // 32 * 4
        return b"".join(rng.integers(0, 256, used).astype(np.uint8).tobytes().ljust(stride, b"\0") for _ in range(H))

    for bits in (1, 4, 8):
        bmp(f"bmp_palette{bits}.bmp", bits, raw(bits), colors=1 << bits)
    bmp("bmp_palette8_short.bmp", 8, raw(8), colors=100)
    bmp("bmp_os2.bmp", 4, raw(4), header=12, colors=16)
    for bits in (16, 24, 32):
        bmp(f"bmp_{bits}.bmp", bits, raw(bits), top_down=bits == 24)
    bmp("bmp_565.bmp", 16, raw(16), 3, masks=(0xF800, 0x7E0, 0x1F))
    bmp("bmp_masks.bmp", 32, raw(32), 3, header=108, masks=(0xFF000000, 0xFF0000, 0xFF00, 0xFF))
    save("bmp_grey.bmp", rgb.convert("L"))
    line8 = bytes([5, 200, 0, 3, 7, 8, 9, 0, 11, 1, 0, 0])
    bmp("bmp_rle8.bmp", 8, line8 * H + b"\0\1", 1, colors=256)
    line4 = bytes([5, 0x3A, 0, 5, 0x12, 0x34, 0x50, 0, 9, 0x77, 0, 0])
    bmp("bmp_rle4.bmp", 4, line4 * (H - 2) + b"\0\2\x13\1" + b"\0\1", 2, colors=16)


# ---- GIF

def gif(name, screen, box, data, colors, local=False, transparent=None, interlaced=False):
    table = np.random.default_rng(len(name)).integers(0, 256, colors * 3).astype(np.uint8).tobytes()
    flags = 0x80 | (colors.bit_length() - 2)
    out = b"GIF89a" + struct.pack("<HHBBB", *screen, 0 if local else flags, 1, 0) + (b"" if local else table)
    if transparent is not None:
        out += b"!\xf9\4" + struct.pack("<BHB", 1, 0, transparent) + b"\0"
    out += b"," + struct.pack("<HHHHB", *box, (flags if local else 0) | (0x40 if interlaced else 0)) + (table if local else b"")
    write(name, out + data + b";")


def gifs(rgb):
    few = rgb.quantize(8)
    save("gif_plain.gif", few, interlace=0)
    save("gif_interlaced.gif", few, interlace=1)
    save("gif_grey.gif", rgb.convert("L"))
    save("gif_animated.gif", few, save_all=True, append_images=[few.rotate(180)])
    whole = encoded(few, "GIF", interlace=0)
    table = 3 << ((whole[10] & 7) + 1)
    data = whole[whole.index(b",", 13 + table) + 10:-1]
    gif("gif_part.gif", (W + 9, H + 5), (6, 2, W, H), data, 8)
    gif("gif_part_transparent.gif", (W + 9, H + 5), (6, 2, W, H), data, 8, transparent=3)
    gif("gif_larger_than_screen.gif", (5, 5), (2, 3, W, H), data, 8, local=True)


def decode_files():
    rgb, rgba = Image.fromarray(pattern(W, H)), Image.fromarray(pattern(W, H, 4))
    cmyk = Image.frombytes("CMYK", (W, H), pattern(W, H, 4).tobytes())
    for name in os.listdir(OUT):
        if not name.endswith(".json"):
            os.remove(os.path.join(OUT, name))
    jpegs(rgb, cmyk), pngs(rgb, rgba), webps(rgb, rgba), tiffs(rgb, rgba, cmyk), bmps(rgb, rgba), gifs(rgb)
    entries = []
    for name in sorted(os.listdir(OUT)):
        if not name.endswith(".json"):
            pixels = np.asarray(ImageOps.exif_transpose(Image.open(os.path.join(OUT, name))).convert("RGB"))
            entries.append({"file": name, "width": pixels.shape[1], "height": pixels.shape[0], "crc32": crc(pixels)})
    return entries


def resizes():
    """[width, height, new width, new height, filter, checksum]"""
    rng, out = np.random.default_rng(1), []
    sides = [1, 2, 3, 7, 17, 31, 64, 100]
    for i in range(600):
        w, h, nw, nh = (int(rng.choice(sides) if rng.random() < 0.5 else rng.integers(1, 160)) for _ in range(4))
        kind = i % 6
        out.append([w, h, nw, nh, kind, crc(np.asarray(Image.fromarray(pattern(w, h)).resize((nw, nh), kind)))])
    for w, h in ((1, 1), (1, 500), (500, 1), (2000, 200), (200, 2000), (333, 500), (375, 500), (500, 333), (640, 480)):
        for kind in range(6):
            out.append([w, h, 224, 224, kind, crc(np.asarray(Image.fromarray(pattern(w, h)).resize((224, 224), kind)))])
    return out


# ---- processors

CONFIGS = [
    {"image_processor_type": "ViTImageProcessor"},
    {"image_processor_type": "ViTImageProcessorFast", "size": {"height": 20, "width": 31}, "resample": 3,
     "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]},
    {"feature_extractor_type": "ViTFeatureExtractor", "do_normalize": True, "do_resize": True, "size": 30, "resample": 2,
     "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5]},
    {"feature_extractor_type": "ViTFeatureExtractor", "size": [18, 25], "resample": 1, "do_normalize": False},
    {"image_processor_type": "ViTImageProcessor", "size": {"shortest_edge": 21}, "rescale_factor": 0.5, "resample": 4},
    {"image_processor_type": "ViTImageProcessor", "size": {"shortest_edge": 40, "longest_edge": 57}, "resample": 5},
    {"image_processor_type": "ViTImageProcessor", "do_resize": False, "do_rescale": False, "do_center_crop": True,
     "crop_size": 33, "image_mean": 10.0, "image_std": 3.0},
    {"image_processor_type": "ViTImageProcessor", "do_resize": False, "do_rescale": False, "do_normalize": False},
    {"image_processor_type": "DeiTImageProcessor"},
    {"feature_extractor_type": "DeiTFeatureExtractor", "size": 37, "crop_size": 28, "resample": 3},
    {"image_processor_type": "CLIPImageProcessor"},
    {"feature_extractor_type": "CLIPFeatureExtractor", "size": 24, "crop_size": 19, "resample": 3, "do_resize": True,
     "do_center_crop": True, "image_mean": [0.48145466, 0.4578275, 0.40821073]},
    {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 20}, "crop_size": {"height": 26, "width": 15}},
    {"image_processor_type": "CLIPImageProcessor", "do_center_crop": False, "size": 23},
    {"image_processor_type": "SiglipImageProcessor", "size": {"height": 33, "width": 33}},
    {"image_processor_type": "SiglipImageProcessor", "size": 22},
    {"image_processor_type": "BlipImageProcessor", "size": 35},
    {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 32}, "crop_size": 28},
    {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 28}},
    {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 24, "crop_pct": 0.75},
    {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}},
]
PICTURES = [(1, 1), (2, 3), (31, 31), (47, 33), (33, 47), (64, 40), (220, 22), (22, 220), (99, 10)]


def processors():
    import transformers
    names = {"ViT": "vit", "DeiT": "deit", "CLIP": "clip", "Siglip": "siglip", "Blip": "blip", "Bit": "bit", "ConvNext": "convnext"}
    rng, out = np.random.default_rng(5), []
    for config in CONFIGS:
        kind = (config.get("image_processor_type") or config["feature_extractor_type"])
        for suffix in ("Fast", "ImageProcessor", "FeatureExtractor"):
            kind = kind.removesuffix(suffix)
        processor = getattr(transformers, kind + "ImageProcessorPil").from_dict(dict(config))
        assert names[kind] in type(processor).__module__
        large = config.get("size") == {"shortest_edge": 384}
        cases = []
        for width, height in PICTURES[3:5] if large else PICTURES:
            image = Image.fromarray(pattern(width, height))
            values = np.asarray(processor(image, return_tensors="np")["pixel_values"][0]).astype(np.float32)
            places = sorted(int(i) for i in rng.choice(values.size, min(values.size, 6), replace=False))
            cases.append({"picture": [width, height], "shape": list(values.shape), "crc32": crc(values),
                          "places": places, "values": [round(float(values.flat[i]), 8) for i in places]})
        out.append({"config": config, "cases": cases})
    return out


def photos(folder):
    from transformers import ViTImageProcessorPil
    processor = ViTImageProcessorPil()
    names, out = sorted(n for n in os.listdir(folder) if n.endswith(".jpg")), []
    for name in names[::len(names) // 50][:50]:
        image = ImageOps.exif_transpose(Image.open(os.path.join(folder, name))).convert("RGB")
        values = np.asarray(processor(image, return_tensors="np")["pixel_values"][0]).astype(np.float32)
        out.append({"file": name, "width": image.width, "height": image.height, "crc32": crc(np.asarray(image)),
                    "processed_crc32": crc(values)})
    return out


def dump(name, value):
    with open(os.path.join(OUT, name), "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(entry) for entry in value) + "\n]\n")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--photos")
    photo_folder = arguments.parse_args().photos
    warnings.simplefilter("ignore")
    os.makedirs(OUT, exist_ok=True)
    dump("files.json", decode_files())
    dump("resize.json", resizes())
    dump("processors.json", processors())
    if photo_folder:
        dump("real.json", photos(photo_folder))


if __name__ == "__main__":
    main()
