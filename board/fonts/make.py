#!/usr/bin/env python3
"""Packs the /efont/ Unicode bitmap fonts into the blobs that the panel draws with.

    apt-get download xfonts-efont-unicode
    ./make.py xfonts-efont-unicode_*.deb        # writes b12.font and b16.font beside this file

Only Python's standard library is needed. The same package gives the same bytes.

A blob, numbers little-endian:

    magic   4 bytes  "JBF1"
    height  u8       rows of every glyph; a half-width glyph is height/2 wide, a full-width one height
    zero    u8
    halves  u16      how many half-width glyphs
    fulls   u16      how many full-width glyphs
    then for halves, then for fulls:
      pages   257 x u16  where the code points with high byte 0, 1, .. 255 start in `codes`; the last one is the count
      codes   n x u8     low bytes of the code points, ascending within each page
    then the pictures, halves first: height rows of width bits, most significant first, no padding between rows,
    each picture padded to whole bytes. Glyph number n of its kind is picture n of its kind.
"""
import gzip, io, lzma, pathlib, struct, sys, tarfile, unicodedata

FONTS = ["b12", "b16"]
HERE = pathlib.Path(__file__).parent


def files_of_deb(path):
    """The members of a .deb's data archive: {path: bytes}."""
    ar = pathlib.Path(path).read_bytes()
    assert ar[:8] == b"!<arch>\n", f"{path}: not a .deb"
    at = 8
    while at < len(ar):
        name, size = ar[at:at + 16].decode().strip(" /"), int(ar[at + 48:at + 58])
        body, at = ar[at + 60:at + 60 + size], at + 60 + size + size % 2
        if name.startswith("data.tar"):
            if name.endswith(".xz"):
                body = lzma.decompress(body)
            tar = tarfile.open(fileobj=io.BytesIO(body))
            return {m.name.lstrip("./"): tar.extractfile(m).read() for m in tar if m.isfile()}
    sys.exit(f"{path}: no data archive")


class Pcf:
    """The parts of X11's Portable Compiled Format that are needed: metrics, bitmaps, encodings."""

    def __init__(self, data):
        assert data[:4] == b"\1fcp", "not a PCF font"
        self.data, self.tables = data, {}
        for i in range(struct.unpack_from("<I", data, 4)[0]):
            kind, form, _size, offset = struct.unpack_from("<4I", data, 8 + 16 * i)
            self.tables[kind] = (form, offset)

    def table(self, kind):
        form, at = self.tables[kind]
        return form, (">" if form & 4 else "<"), at + 4

    def metrics(self):
        """(left bearing, right bearing, advance, ascent, descent) of each glyph."""
        form, e, at = self.table(4)
        if form & 0x100:  # compressed: bytes around 0x80
            n = struct.unpack_from(e + "H", self.data, at)[0]
            return [tuple(b - 0x80 for b in self.data[at + 2 + 5 * i:at + 7 + 5 * i]) for i in range(n)]
        n = struct.unpack_from(e + "I", self.data, at)[0]
        return [struct.unpack_from(e + "5h", self.data, at + 4 + 12 * i) for i in range(n)]

    def bitmaps(self):
        """(bytes, row padding in bytes, reads a row as an integer with the first pixel on top)."""
        form, e, at = self.table(8)
        n = struct.unpack_from(e + "I", self.data, at)[0]
        offsets = struct.unpack_from(f"{e}{n}I", self.data, at + 4)
        start = at + 4 + 4 * n + 16
        pad = 1 << (form & 3)
        assert form & 8, "bits are not most significant first"
        assert (form & 4) or (form >> 4 & 3) == 0, "bytes are swapped within units"
        return offsets, start, pad

    def encodings(self):
        """{code point: glyph number}."""
        _form, e, at = self.table(32)
        low2, high2, low1, high1, _default = struct.unpack_from(e + "5h", self.data, at)
        found, at = {}, at + 10
        for one in range(low1, high1 + 1):
            for two in range(low2, high2 + 1):
                glyph = struct.unpack_from(e + "H", self.data, at)[0]
                at += 2
                if glyph != 0xFFFF:
                    found[one << 8 | two] = glyph
        return found

    def ascent(self):
        _form, e, at = self.table(2)
        return struct.unpack_from(e + "i", self.data, at + 8)[0]


def pictures(pcf, height):
    """({code: bytes} half width, {code: bytes} full width): every glyph set into its cell."""
    metrics, (offsets, start, pad), ascent = pcf.metrics(), pcf.bitmaps(), pcf.ascent()
    kinds = ({}, {})
    for code, glyph in sorted(pcf.encodings().items()):
        left, right, advance, up, down = metrics[glyph]
        if code < 0x20 or 0x7F <= code < 0xA0 or advance not in (height // 2, height):
            continue
        ink, stride = right - left, (right - left + 8 * pad - 1) // (8 * pad) * pad
        cell = [0] * height
        for y in range(up + down):
            at = start + offsets[glyph] + y * stride
            row = int.from_bytes(pcf.data[at:at + stride], "big") >> (8 * stride - ink) if ink > 0 else 0
            shift = advance - left - ink
            row = row << shift if shift >= 0 else row >> -shift
            if 0 <= ascent - up + y < height:
                cell[ascent - up + y] = row & ((1 << advance) - 1)
        bits = 0
        for row in cell:
            bits = bits << advance | row
        length = (advance * height + 7) // 8
        kinds[advance == height][code] = (bits << (8 * length - advance * height)).to_bytes(length, "big")
    return kinds


def compose(halves):
    """Adds letters with accents that are missing, from the letter and the marks that are there (Vietnamese, mostly): a letter
    without one of its marks reads better than a box. Returns how many."""
    def picture(code):
        parts = unicodedata.decomposition(chr(code)).split()
        if code in halves or len(parts) != 2 or parts[0].startswith("<"):
            return halves.get(code)
        letter, mark = picture(int(parts[0], 16)), halves.get(int(parts[1], 16))
        return letter and bytes(a | b for a, b in zip(letter, mark or bytes(len(letter))))

    added = {c: picture(c) for c in range(0xA0, 0x2000) if c not in halves and unicodedata.category(chr(c))[0] == "L"}
    added = {c: p for c, p in added.items() if p}
    halves.update(added)
    return len(added)


def blob(height, halves, fulls):
    out = b"JBF1" + struct.pack("<BBHH", height, 0, len(halves), len(fulls))
    for glyphs in (halves, fulls):
        codes = sorted(glyphs)
        pages = [sum(code >> 8 < page for code in codes) for page in range(257)]
        out += struct.pack("<257H", *pages) + bytes(code & 0xFF for code in codes)
    return out + b"".join(g[c] for g in (halves, fulls) for c in sorted(g))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    files = files_of_deb(sys.argv[1])
    for name in FONTS:
        height = int(name[1:])
        pcf = Pcf(gzip.decompress(files[f"usr/share/fonts/X11/misc/{name}.pcf.gz"]))
        halves, fulls = pictures(pcf, height)
        composed = compose(halves)
        data = blob(height, halves, fulls)
        (HERE / f"{name}.font").write_bytes(data)
        print(f"{name}.font: {len(halves)} half-width ({composed} composed), {len(fulls)} full-width, {len(data)} bytes")


if __name__ == "__main__":
    main()
