/** One float32 array in NumPy's .npz: a zip archive, stored without compression, of one .npy file (format 1.0). */
import zlib from "node:zlib";

/** Bytes of `{name: data}` with `data` in C order of `shape`. */
export function encodeNpz(
  name: string,
  data: Float32Array,
  shape: readonly number[],
): Uint8Array<ArrayBuffer> {
  const text = new TextEncoder();
  let head = `{'descr': '<f4', 'fortran_order': False, 'shape': (${shape.join(", ")},), }`;
  head += " ".repeat(63 - (10 + head.length) % 64) + "\n";
  const body = new Uint8Array(10 + head.length + data.byteLength);
  body.set([0x93, ...text.encode("NUMPY"), 1, 0, head.length & 255, head.length >> 8]);
  body.set(text.encode(head), 10);
  body.set(new Uint8Array(data.buffer, data.byteOffset, data.byteLength), 10 + head.length);

  const file = text.encode(`${name}.npy`);
  const out = new Uint8Array(30 + file.length + body.length + 46 + file.length + 22);
  const view = new DataView(out.buffer);
  // Version needed, flags, method, time, date (1 January 1980), checksum, sizes, name length, extra length.
  const entry = (at: number) => {
    view.setUint16(at, 20, true);
    view.setUint16(at + 8, 0x21, true);
    view.setUint32(at + 10, zlib.crc32(body), true);
    view.setUint32(at + 14, body.length, true);
    view.setUint32(at + 18, body.length, true);
    view.setUint16(at + 22, file.length, true);
  };
  view.setUint32(0, 0x04034b50, true);
  entry(4);
  out.set(file, 30);
  out.set(body, 30 + file.length);
  const directory = 30 + file.length + body.length;
  view.setUint32(directory, 0x02014b50, true);
  view.setUint16(directory + 4, 20, true);
  entry(directory + 6);
  out.set(file, directory + 46);
  const end = directory + 46 + file.length;
  view.setUint32(end, 0x06054b50, true);
  view.setUint16(end + 8, 1, true);
  view.setUint16(end + 10, 1, true);
  view.setUint32(end + 12, 46 + file.length, true);
  view.setUint32(end + 16, directory, true);
  return out;
}
