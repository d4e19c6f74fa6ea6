/**
 * TensorBoard event files. A file is a run of records (TFRecord framing: length, masked CRC32C of the length, bytes,
 * masked CRC32C of the bytes), each record an `Event` of tensorboard/compat/proto/event.proto in protobuf wire format.
 */
import { join } from "@std/path";
import { crc32c } from "../data/crc32c.ts";

/** The CRC as TFRecord stores it: turned right by 15 bits, plus a constant. */
function masked(bytes: Uint8Array): number {
  const crc = crc32c(bytes);
  return (((crc >>> 15) | (crc << 17)) + 0xa282ead8) >>> 0;
}

function concat(parts: Uint8Array[]): Uint8Array {
  const out = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    out.set(part, at);
    at += part.length;
  }
  return out;
}

function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return Uint8Array.from([...bytes, value]);
}

const key = (field: number, wire: number) => Uint8Array.of((field << 3) | wire);
const bytesField = (field: number, bytes: Uint8Array) => concat([key(field, 2), varint(bytes.length), bytes]);
const textField = (field: number, text: string) => bytesField(field, new TextEncoder().encode(text));

/** One number of wire type 1 (8 bytes) or 5 (4 bytes), little endian. */
function floatField(field: number, value: number, size: 4 | 8): Uint8Array {
  const view = new DataView(new ArrayBuffer(size));
  if (size === 8) view.setFloat64(0, value, true);
  else view.setFloat32(0, value, true);
  return concat([key(field, size === 8 ? 1 : 5), new Uint8Array(view.buffer)]);
}

/** A framed record. `time` in seconds since 1970; `values` by tag, empty for the record that opens a file. */
export function record(
  time: number,
  step: number,
  values: Record<string, number>,
  version?: string,
): Uint8Array {
  const scalars = Object.entries(values).map(([tag, value]) =>
    bytesField(1, concat([textField(1, tag), floatField(2, value, 4)]))
  );
  const event = concat([
    floatField(1, time, 8),
    ...(step > 0 ? [key(2, 0), varint(step)] : []),
    ...(version ? [textField(3, version)] : []),
    ...(scalars.length ? [bytesField(5, concat(scalars))] : []),
  ]);
  const head = new DataView(new ArrayBuffer(12));
  head.setBigUint64(0, BigInt(event.length), true);
  head.setUint32(8, masked(new Uint8Array(head.buffer, 0, 8)), true);
  const tail = new DataView(new ArrayBuffer(4));
  tail.setUint32(0, masked(event), true);
  return concat([new Uint8Array(head.buffer), event, new Uint8Array(tail.buffer)]);
}

/** The step of an event of ours: field 2 follows the 9 bytes of the time, or is absent and 0. */
function stepOf(event: Uint8Array): number {
  if (event[9] !== 0x10) return 0;
  let step = 0;
  for (let at = 10, scale = 1; at < event.length; at++, scale *= 128) {
    step += (event[at] & 127) * scale;
    if (event[at] < 128) break;
  }
  return step;
}

/** Length in bytes of the leading records of `bytes` that are whole and of steps up to `lastStep`. */
export function validLength(bytes: Uint8Array, lastStep: number): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  let at = 0;
  while (at + 16 <= bytes.length) {
    const end = at + 12 + Number(view.getBigUint64(at, true));
    if (end + 4 > bytes.length) break;
    const event = bytes.subarray(at + 12, end);
    if (view.getUint32(end, true) !== masked(event) || stepOf(event) > lastStep) break;
    at = end + 4;
  }
  return at;
}

/** Appends scalars to an event file in a run folder. */
export class EventWriter {
  private constructor(private readonly file: Deno.FsFile) {}

  /** Opens a new file `events.out.tfevents.<seconds>.voxalign` in `folder`. */
  static async create(folder: string): Promise<EventWriter> {
    const seconds = Math.floor(Date.now() / 1000);
    const path = join(folder, `events.out.tfevents.${seconds}.voxalign`);
    const writer = new EventWriter(await Deno.open(path, { create: true, write: true, truncate: true }));
    writer.append(record(Date.now() / 1000, 0, {}, "brain.Event:2"));
    return writer;
  }

  /** Goes on in the newest file of `folder`, less the records after `lastStep` and a torn end; a new one if there is none. */
  static async reopen(folder: string, lastStep: number): Promise<EventWriter> {
    const names: string[] = [];
    for await (const { name } of Deno.readDir(folder)) {
      if (/^events\.out\.tfevents\.\d+\.voxalign$/.test(name)) names.push(name);
    }
    const newest = names.sort().pop();
    if (!newest) return await EventWriter.create(folder);
    const path = join(folder, newest);
    const length = validLength(await Deno.readFile(path), lastStep);
    const file = await Deno.open(path, { read: true, write: true });
    await file.truncate(length);
    await file.seek(length, Deno.SeekMode.Start);
    return new EventWriter(file);
  }

  /** One record: `values` by tag at `step` (from 1). */
  write(step: number, values: Record<string, number>): void {
    this.append(record(Date.now() / 1000, step, values));
  }

  close(): void {
    this.file.close();
  }

  private append(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) at += this.file.writeSync(bytes.subarray(at));
  }
}
