/**
 * Zip archives as `torch.save` writes them: one disk, stored or deflated entries, zip64. Read through the central
 * directory with bounded reads and never extracted; written with stored entries whose payloads start at multiples of 64.
 */
import zlib from "node:zlib";
import { UserError } from "../errors.ts";
import { RandomFile } from "./random_file.ts";

/** An entry of the central directory. */
interface Entry {
  method: number;
  packed: number;
  size: number;
  header: number;
}

/** Longest central directory that is read, in bytes. */
const LONGEST_DIRECTORY = 64 << 20;
/** Largest deflated entry that is inflated, in bytes: torch stores its tensors. */
const LARGEST_DEFLATED = 1 << 30;

/** The archive in `path`. @throws UserError when it is no zip archive, cut or damaged */
export class ZipReader implements Disposable {
  readonly #entries = new Map<string, Entry>();
  readonly #inflated = new Map<string, Uint8Array>();

  constructor(private readonly file: RandomFile) {
    const tail = file.read(Math.max(0, file.size - 65_557), Math.min(file.size, 65_557));
    const view = new DataView(tail.buffer, tail.byteOffset, tail.length);
    let end = tail.length - 22;
    while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
    if (end < 0) this.#fail("has no end of a zip archive: it is cut");
    let [count, size, at] = [
      view.getUint16(end + 10, true),
      view.getUint32(end + 12, true),
      view.getUint32(end + 16, true),
    ];
    if (end >= 20 && view.getUint32(end - 20, true) === 0x07064b50) {
      const record = this.#view(Number(view.getBigUint64(end - 12, true)), 56);
      if (record.getUint32(0, true) !== 0x06064b50) this.#fail("has a damaged zip64 record");
      [count, size, at] = [32, 40, 48].map((offset) => Number(record.getBigUint64(offset, true)));
    }
    if (size > LONGEST_DIRECTORY) this.#fail(`has a directory of ${size} bytes`);
    this.#directory(this.#view(at, size), count);
  }

  #fail(what: string): never {
    throw new UserError(`${this.file.path}: ${what}; copy or download the file again`);
  }

  #view(at: number, length: number): DataView {
    const bytes = this.file.read(at, length);
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  #directory(view: DataView, count: number): void {
    const text = new TextDecoder();
    for (let at = 0, i = 0; i < count; i++) {
      if (at + 46 > view.byteLength || view.getUint32(at, true) !== 0x02014b50) {
        this.#fail(`has a damaged directory at entry ${i + 1} of ${count}`);
      }
      const [nameSize, extraSize, noteSize] = [28, 30, 32].map((offset) => view.getUint16(at + offset, true));
      const next = at + 46 + nameSize + extraSize + noteSize;
      if (next > view.byteLength) this.#fail(`has a damaged directory at entry ${i + 1} of ${count}`);
      const name = text.decode(new Uint8Array(view.buffer, view.byteOffset + at + 46, nameSize));
      const entry: Entry = {
        method: view.getUint16(at + 10, true),
        packed: view.getUint32(at + 20, true),
        size: view.getUint32(at + 24, true),
        header: view.getUint32(at + 42, true),
      };
      for (let extra = at + 46 + nameSize; extra + 4 <= next - noteSize;) {
        const [id, length] = [view.getUint16(extra, true), view.getUint16(extra + 2, true)];
        let value = extra + 4;
        for (const field of id === 1 ? ["size", "packed", "header"] as const : []) {
          if (entry[field] !== 0xffffffff || value + 8 > extra + 4 + length) continue;
          entry[field] = Number(view.getBigUint64(value, true));
          value += 8;
        }
        extra += 4 + length;
      }
      if (view.getUint16(at + 8, true) & 1) this.#fail(`has the encrypted entry "${name}"`);
      if (entry.method !== 0 && entry.method !== 8) this.#fail(`packs "${name}" by method ${entry.method}`);
      if (this.#entries.has(name)) this.#fail(`has two entries "${name}"`);
      this.#entries.set(name, entry);
      at = next;
    }
  }

  /** Names of the entries, in the order of the directory. */
  get names(): string[] {
    return [...this.#entries.keys()];
  }

  /** Bytes of an entry when unpacked; undefined when there is none of this name. */
  size(name: string): number | undefined {
    return this.#entries.get(name)?.size;
  }

  /** `length` bytes of entry `name` from byte `start`. @throws UserError when it does not hold them */
  read(name: string, start = 0, length = (this.size(name) ?? 0) - start): Uint8Array<ArrayBuffer> {
    const entry = this.#entries.get(name);
    if (!entry) return this.#fail(`lacks its entry "${name}"`);
    if (start + length > entry.size) this.#fail(`"${name}" has ${entry.size} bytes, too few`);
    const head = this.#view(entry.header, 30);
    if (head.getUint32(0, true) !== 0x04034b50) this.#fail(`has a damaged entry "${name}"`);
    const at = entry.header + 30 + head.getUint16(26, true) + head.getUint16(28, true);
    if (entry.method === 0) return this.file.read(at + start, length);
    let bytes = this.#inflated.get(name);
    if (!bytes) {
      if (entry.size > LARGEST_DEFLATED) this.#fail(`"${name}" inflates to ${entry.size} bytes`);
      try {
        const packed = this.file.read(at, entry.packed);
        bytes = new Uint8Array(zlib.inflateRawSync(packed, { maxOutputLength: entry.size || 1 }));
      } catch (error) {
        this.#fail(`has a damaged entry "${name}" (${(error as Error).message})`);
      }
      if (bytes.length !== entry.size) this.#fail(`has a damaged entry "${name}"`);
      this.#inflated.clear();
      this.#inflated.set(name, bytes);
    }
    return bytes.slice(start, start + length);
  }

  [Symbol.dispose](): void {
    this.file[Symbol.dispose]();
  }
}

/** Writes an archive entry by entry; nothing but the directory is kept in memory. */
export class ZipWriter {
  readonly #entries: { name: Uint8Array; crc: number; size: number; header: number }[] = [];
  #at = 0;

  constructor(private readonly file: Deno.FsFile) {}

  #put(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) at += this.file.writeSync(bytes.subarray(at));
  }

  /** Adds an entry of `size` bytes that come in `parts`. @throws UserError beyond the 4 GiB that plain zip holds */
  add(name: string, size: number, parts: Iterable<Uint8Array>): void {
    const text = new TextEncoder().encode(name);
    const header = this.#at;
    const padding = (64 - (header + 30 + text.length + 4) % 64) % 64;
    const payload = header + 34 + text.length + padding;
    if (payload + size >= 0xffffffff) {
      throw new UserError("these weights exceed 4 GiB, which a .pth of ours cannot hold; use .safetensors");
    }
    const head = new Uint8Array(payload - header);
    const view = new DataView(head.buffer);
    view.setUint16(26, text.length, true);
    view.setUint16(28, 4 + padding, true);
    head.set(text, 30);
    view.setUint16(30 + text.length, 0x4246, true); // "FB": the padding of torch
    view.setUint16(32 + text.length, padding, true);
    this.#put(head);
    let [crc, written] = [0, 0];
    for (const part of parts) {
      crc = zlib.crc32(part, crc);
      written += part.length;
      this.#put(part);
    }
    if (written !== size) throw new Error(`${name}: ${written} bytes instead of ${size}`);
    fill(view, 0, 0x04034b50, 4, crc, size);
    this.file.seekSync(header, Deno.SeekMode.Start);
    this.#put(head);
    this.#at = payload + size;
    this.file.seekSync(this.#at, Deno.SeekMode.Start);
    this.#entries.push({ name: text, crc, size, header });
  }

  /** Writes the directory. */
  finish(): void {
    const start = this.#at;
    for (const { name, crc, size, header } of this.#entries) {
      const record = new Uint8Array(46 + name.length);
      const view = new DataView(record.buffer);
      fill(view, 0, 0x02014b50, 6, crc, size);
      view.setUint16(4, 20, true);
      view.setUint16(28, name.length, true);
      view.setUint32(42, header, true);
      record.set(name, 46);
      this.#put(record);
      this.#at += record.length;
    }
    const end = new DataView(new ArrayBuffer(22));
    end.setUint32(0, 0x06054b50, true);
    end.setUint16(8, this.#entries.length, true);
    end.setUint16(10, this.#entries.length, true);
    end.setUint32(12, this.#at - start, true);
    end.setUint32(16, start, true);
    this.#put(new Uint8Array(end.buffer));
  }
}

/** The fields that a local header and a directory record share, from `at` on: version, date 1 January 1980, crc, sizes. */
function fill(view: DataView, start: number, magic: number, at: number, crc: number, size: number): void {
  view.setUint32(start, magic, true);
  view.setUint16(at, 20, true);
  view.setUint16(at + 8, 0x21, true);
  view.setUint32(at + 10, crc, true);
  view.setUint32(at + 14, size, true);
  view.setUint32(at + 18, size, true);
}
