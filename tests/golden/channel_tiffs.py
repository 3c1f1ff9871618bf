#!/usr/bin/env python3
"""Writes TIFF files with all channels of a sample, and their expected planes: channel_tiffs.json.

tifffile writes random pixels of 8 and 16 bits. The variants are: one page per channel, or all
channels in one page (interleaved or planar); strips and tiles; several compressions and byte
orders; BigTIFF; OME-XML, ImageJ's metadata, or neither. Files and expected planes are base64. The
planes follow each other, with 16 bits rounded to the nearest of 0-255.

    pip install tifffile==2026.3.3 numpy==2.4.6 imagecodecs==2026.3.6 && python channel_tiffs.py
"""

import base64
import io
import json
import pathlib
import uuid
from importlib.metadata import version

import numpy
import tifffile

SEED = 0
NAMES = ["DAPI", "Alexa 488", "ER, far red", "µtubules"]
HERE = pathlib.Path(__file__).resolve().parent
RANDOM = numpy.random.default_rng(SEED)


def pixels(depth, shape):
    """Returns random planes, smooth enough that predictors have an effect."""
    most = 2**depth - 1
    noise = RANDOM.integers(0, most // 4, shape)
    slope = numpy.linspace(0, most * 3 // 4, shape[-1]).astype(numpy.int64)
    return (noise + slope).astype(numpy.uint8 if depth == 8 else numpy.uint16)


def case(name, planes, names=None, **options):
    """Returns one file with its expected planes; `planes` are [channels, height, width]."""
    out = io.BytesIO()
    stored = planes
    if len(options.get("metadata", {}) or {}) and options["metadata"]["axes"] == "TCZYX":
        stored = planes[None, :, None]
    if options.pop("interleaved", False):
        stored = numpy.moveaxis(planes, 0, -1)
        options["planarconfig"] = "contig"
    containers = ("bigtiff", "byteorder", "ome", "imagej")
    container = {key: options.pop(key) for key in containers if key in options}
    options.setdefault("photometric", "minisblack")
    with tifffile.TiffWriter(out, **container) as file:
        if options.pop("page_by_page", False):
            for plane in stored:
                file.write(plane, metadata=None, **options)
        else:
            file.write(stored, **options)
    data = out.getvalue()
    assert len(data) < 20_000, name
    deep = planes.dtype == numpy.uint16
    gray = (planes.astype(numpy.uint32) + 128) // 257 if deep else planes
    return {
        "name": name,
        "file": base64.b64encode(data).decode(),
        "width": planes.shape[2],
        "height": planes.shape[1],
        "names": names,
        "planes": base64.b64encode(gray.astype(numpy.uint8).tobytes()).decode(),
    }


def ome(names, axes="CYX", **more):
    """Returns the options that make tifffile write OME-XML."""
    channels = {"Name": names} if names else {}
    return {"ome": True, "metadata": {"axes": axes, "Channel": channels, **more}}


def all_cases():
    """Yields all cases."""
    for depth in (8, 16):
        planes = pixels(depth, (4, 11, 13))
        for compression in (None, "lzw", "deflate", "packbits"):
            options = {"compression": compression, "rowsperstrip": 4}
            kind = f"{depth} bit, {compression or 'uncompressed'}"
            yield case(f"pages, {kind}", planes, page_by_page=True, **options)
            yield case(f"OME pages, {kind}", planes, NAMES, **ome(NAMES), **options)
            yield case(f"interleaved, {kind}", planes, interleaved=True, metadata=None, **options)
            yield case(f"planar, {kind}", planes, planarconfig="separate", metadata=None, **options)
        for compression in ("lzw", "deflate"):
            options = {"compression": compression, "predictor": True}
            kind = f"{depth} bit, {compression} with predictor"
            yield case(f"OME pages, {kind}", planes, NAMES, **ome(NAMES), **options)
            yield case(f"interleaved, {kind}", planes, interleaved=True, metadata=None, **options)
        tiled = pixels(depth, (4, 19, 17))
        tiles = {"tile": (16, 16), "compression": "deflate"}
        yield case(f"OME tiles, {depth} bit", tiled, NAMES, **ome(NAMES), **tiles)
        yield case(f"interleaved tiles, {depth} bit", tiled, interleaved=True, metadata=None, **tiles)
        # Not supported yet.
        yield case(f"planar tiles, {depth} bit", tiled, planarconfig="separate", metadata=None, **tiles)
        yield case(f"OME, BigTIFF, {depth} bit", planes, NAMES, bigtiff=True, **ome(NAMES))
        yield case(f"OME, big-endian, {depth} bit", planes, NAMES, byteorder=">", **ome(NAMES))
        yield case(f"BigTIFF, big-endian, {depth} bit", planes, byteorder=">", bigtiff=True, page_by_page=True)
        yield case(f"ImageJ, {depth} bit", planes, imagej=True, metadata={"axes": "CYX"})
        yield case(f"OME without names, {depth} bit", planes, **ome(None))
        yield case(f"OME planar, {depth} bit", planes, planarconfig="separate", **ome(None))
        stack = {**ome(NAMES, axes="TCZYX"), "page_by_page": False}
        yield case(f"OME, one of Z and T, {depth} bit", planes, NAMES, **stack)
    yield case("RGB", pixels(8, (3, 9, 11)), interleaved=True, photometric="rgb", metadata=None)
    yield case("one channel", pixels(16, (1, 9, 11)), page_by_page=True)


def main():
    """Writes all cases."""
    # OME-XML contains a UUID, which would otherwise depend on the clock.
    uuid.uuid1 = lambda: uuid.UUID(int=SEED)
    made = {
        "script": "channel_tiffs.py",
        "tifffile": version("tifffile"),
        "numpy": version("numpy"),
        "seed": SEED,
        "cases": list(all_cases()),
    }
    text = json.dumps(made, separators=(",", ":"), ensure_ascii=False)
    (HERE / "channel_tiffs.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
