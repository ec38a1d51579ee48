// Animated PNG from PNGs of one size (PNG specification, third edition: acTL, fcTL, fdAT).

const SIGNATURE = Uint8Array.of(0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a);

const TABLE = Uint32Array.from({ length: 256 }, (_, value) => {
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function crc(bytes) {
  let value = -1;
  for (const byte of bytes) value = (value >>> 8) ^ TABLE[(value ^ byte) & 255];
  return ~value >>> 0;
}

/** A chunk of a name and parts: arrays of bytes, or numbers of four bytes each. */
function chunk(name, ...parts) {
  const fields = parts.map((part) => (typeof part === "number" ? uint(part, 4) : part));
  const length = fields.reduce((sum, field) => sum + field.length, 0);
  const bytes = new Uint8Array(length + 12);
  bytes.set(uint(length, 4));
  bytes.set([...name].map((letter) => letter.charCodeAt(0)), 4);
  let at = 8;
  for (const field of fields) {
    bytes.set(field, at);
    at += field.length;
  }
  bytes.set(uint(crc(bytes.subarray(4, at)), 4), at);
  return bytes;
}

const uint = (value, size) => Uint8Array.from({ length: size }, (_, i) => value >>> (8 * (size - 1 - i)));

/** The bytes of a PNG's header and of its compressed pixels. */
async function read(blob) {
  const bytes = new Uint8Array(await blob.arrayBuffer());
  const view = new DataView(bytes.buffer);
  const found = { header: null, pixels: [] };
  for (let at = 8; at < bytes.length; at += 12 + view.getUint32(at)) {
    const name = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const body = bytes.subarray(at + 8, at + 8 + view.getUint32(at));
    if (name === "IHDR") found.header = body;
    if (name === "IDAT") found.pixels.push(body);
  }
  return found;
}

/** @param blobs one PNG a frame, all of one size and kind; @param seconds how long each is shown. */
export async function animatedPng(blobs, seconds) {
  const seen = new Map();
  for (const blob of new Set(blobs)) seen.set(blob, await read(blob));
  const { header } = seen.get(blobs[0]);
  if ([...seen.values()].some((other) => String(other.header) !== String(header))) throw new Error("PNGs of different kinds");
  const ticks = Math.max(...seconds) < 1 ? 60000 : 1000; // of a second; a frame has 65535 at most, and common rates none left over
  const parts = [SIGNATURE, chunk("IHDR", header), chunk("acTL", blobs.length, 0)];
  let number = 0;
  blobs.forEach((blob, index) => {
    // Whole frames, each in the place of the one before.
    parts.push(chunk("fcTL", number++, header.subarray(0, 8), 0, 0, uint(Math.round(ticks * seconds[index]), 2), uint(ticks, 2), uint(0, 2)));
    for (const body of seen.get(blob).pixels) parts.push(index ? chunk("fdAT", number++, body) : chunk("IDAT", body));
  });
  return new Blob([...parts, chunk("IEND")], { type: "image/png" });
}
